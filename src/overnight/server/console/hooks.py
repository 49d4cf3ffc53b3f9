"""GET /console/hooks and the pages below it: who is told what happens in the caller's workspace.

As with keys, a secret is in the answer to the form that made its hook, and in no other page.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, cast, get_args
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight import limits
from overnight.core import hook as hooks_
from overnight.core.hook import EVENTS, Delivery, DeliveryStatus, EventType, Hook
from overnight.errors import InvalidRequest, NotFound, UsageError
from overnight.runner import hooks as sending
from overnight.runner.outward import Outward
from overnight.server import context
from overnight.server.console import pages, session
from overnight.server.context import Context

ABOUT: Final[Mapping[EventType, str]] = {
    "batch.ended": "a batch has ended",
    "batch.expiring": "a batch is not finished, and has an hour left",
    "budget.reached": "a budget of the workspace is spent",
}
_FILTERS: Final = ("hook", "status")
_is_new_id = re.compile(r"hook_01[1-9A-HJ-NP-Za-km-z]{22}").fullmatch


async def hooks(http_request: HttpRequest) -> Response:
    """The hooks of the workspace, and the newest deliveries to them, or of those the ones that are looked for."""
    here, workspace = context.of(http_request), session.caller_of(http_request).workspace
    found = await here.store.hooks.hooks(workspace)
    given = {name: http_request.query_params.get(name, "") for name in _FILTERS}
    status = cast(DeliveryStatus, given["status"]) if given["status"] in get_args(DeliveryStatus) else None
    deliveries = await here.store.hooks.deliveries(
        workspace=workspace,
        hook_id=given["hook"] or None,
        status=status,
        limit=limits.CONSOLE_DELIVERIES + 1,
    )
    return await pages.rendered(
        http_request,
        "hooks.html",
        hooks=found,
        deliveries=deliveries[: limits.CONSOLE_DELIVERIES],
        has_more=len(deliveries) > limits.CONSOLE_DELIVERIES,
        bodies={item.id: _body(item) for item in deliveries},
        given=given,
        statuses=get_args(DeliveryStatus),
        filters=urlencode({name: value for name, value in given.items() if value}),
        is_full=len(found) >= limits.HOOKS_MAX,
        trouble=here.hooks.trouble if here.hooks is not None else "",
    )


def _body(item: Delivery) -> str:
    """What is sent, as text for people."""
    return msgspec.json.format(item.body, indent=2).decode(errors="replace")


# --- A new hook -----------------------------------------------------------------------------------------------------


async def ask_new(http_request: HttpRequest) -> Response:
    """The form of a new hook."""
    here = context.of(http_request)
    hook_id = sending.hook_id_drawn(here.world)
    return await _form(http_request, {"url": "", "id": hook_id}, list(EVENTS), {})


async def create(http_request: HttpRequest) -> Response:
    """Make a hook and show its secret; durable before the answer. The form again, with 400, if a field cannot be."""
    here, form = context.of(http_request), session.visit_of(http_request).form
    workspace = session.caller_of(http_request).workspace
    given = {name: form.get(name, "").strip() for name in ("url", "id")}
    events = tuple(event for event in EVENTS if event in form.getlist("events"))
    if any(item.id == given["id"] for item in await here.store.hooks.hooks()):
        raise InvalidRequest(
            "This form was sent before, and made a hook then. Its secret is shown once: if you do not have it, make "
            "another hook and delete that one."
        )
    if _is_new_id(given["id"]) is None:
        raise InvalidRequest("The form is not whole; load it again.")
    troubles = {} if events else {"events": "Choose at least one event."}
    try:
        made = await sending.new_hook(
            workspace, given["url"], events, outward=_outward(here), world=here.world, hook_id=given["id"]
        )
        if not troubles:
            await here.store.hooks.add(made.hook, made.secret)
    except UsageError as error:
        troubles["url"] = str(error)
    if troubles:
        return await _form(http_request, given, events, troubles)
    return await pages.rendered(
        http_request, "hookmade.html", hook=made.hook, secret=hooks_.secret_text(made.secret), about=ABOUT
    )


async def _form(
    http_request: HttpRequest, given: Mapping[str, str], events: Sequence[str], troubles: Mapping[str, str]
) -> Response:
    return await pages.rendered(
        http_request,
        "hooknew.html",
        status=400 if troubles else 200,
        given=given,
        chosen=events,
        about=ABOUT,
        troubles=troubles,
    )


# --- A hook that is there -------------------------------------------------------------------------------------------


async def ask_delete(http_request: HttpRequest) -> Response:
    """What is lost with a hook, and the button."""
    hook, _ = await _named(http_request)
    return await pages.rendered(http_request, "hookdelete.html", hook=hook)


async def delete(http_request: HttpRequest) -> Response:
    """Remove a hook and what is on its way to it; durable before the answer. InvalidRequest if the box was not
    ticked."""
    hook, _ = await _named(http_request)
    if session.visit_of(http_request).form.get("confirm") != "yes":
        raise InvalidRequest("Nothing was deleted: tick the box to say that you mean it.")
    await context.of(http_request).store.hooks.remove(hook.id)
    return pages.redirect(http_request, "/console/hooks")


async def test(http_request: HttpRequest) -> Response:
    """Post a `hook.test` now, once, and show what came back."""
    here = context.of(http_request)
    hook, secret = await _named(http_request)
    heard = await sending.tried(hook, secret, outward=_outward(here), world=here.world)
    said = heard.beginning.decode(errors="replace")
    return await pages.rendered(http_request, "hooktested.html", hook=hook, heard=heard, said=said)


async def resend(http_request: HttpRequest) -> Response:
    """Send a delivery again, under its id; due before the answer. NotFound if the workspace has none of that id."""
    here, workspace = context.of(http_request), session.caller_of(http_request).workspace
    now_ms = here.world.clock.now_ms()
    try:
        await here.store.hooks.resend(http_request.path_params["delivery_id"], workspace=workspace, now_ms=now_ms)
    except UsageError as error:
        raise NotFound("There is no such delivery.") from error
    return pages.redirect(http_request, "/console/hooks")


async def _named(http_request: HttpRequest) -> tuple[Hook, bytes]:
    """The hook that the path names, with its secret; NotFound if the workspace has none of that id."""
    here, workspace = context.of(http_request), session.caller_of(http_request).workspace
    try:
        hook, secret = await here.store.hooks.find(http_request.path_params["hook_id"])
    except UsageError as error:
        raise NotFound("There is no such hook.") from error
    if hook.workspace != workspace:
        raise NotFound("There is no such hook.")
    return hook, secret


def _outward(here: Context) -> Outward:
    return Outward(here.world.clock, to_private=here.settings.hooks_to_private_addresses)
