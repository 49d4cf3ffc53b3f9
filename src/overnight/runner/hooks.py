"""The sender of hooks: takes deliveries whose time has come out of the store, and posts each until it is taken.

At least once: what was taken by its receiver and not noted before we died is sent again, with the same id. The order
of deliveries is not promised, not even to one hook.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from overnight import limits
from overnight.core import hook as hooks
from overnight.core.hook import TEST_EVENT, Delivery, Event, EventType, Heard, Hook
from overnight.errors import StoreError
from overnight.ids import ID_ENTROPY_BYTES, WorkspaceId, named
from overnight.ports.world import World
from overnight.runner.outward import Outward
from overnight.store.hooks import Due, HookStore

log = logging.getLogger("overnight.hooks")


class HookSender:
    """One for a store. On one event loop."""

    def __init__(self, store: HookStore, world: World, outward: Outward, *, public_url: str = "") -> None:
        """`public_url`: what clients reach this server by, if that is known; it begins `results_url`."""
        self.trouble = ""  # Why nothing is sent, or noted; empty if all is well. For health.
        self._store, self._world, self._outward, self._public_url = store, world, outward, public_url
        self._events: list[Event] = []  # That are in no outbox yet.
        self._sending: dict[str, str] = {}  # Hooks by delivery.
        self._upkeep_at_ms = self._forget_at_ms = 0

    def tell(self, event: Event) -> None:
        """Announce an event as soon as the store takes it; a crash before that forgets it."""
        self._events.append(event)

    async def run(self) -> None:
        """Send until cancelled; what is on its way then is sent again by the next process."""
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    await self._upkeep()
                    await self._begin(group)
                    self.trouble = ""
                except StoreError as error:
                    self.trouble = str(error)
                await asyncio.sleep(limits.HOOK_LOOK_S)

    async def once(self) -> int:
        """Send what is due now, as much as may be on its way at once, and note what became of it. How many that were.
        StoreError if the store cannot be read."""
        await self._upkeep()
        async with asyncio.TaskGroup() as group:
            return await self._begin(group)

    async def _begin(self, group: asyncio.TaskGroup) -> int:
        of_hook = Counter(self._sending.values())
        full = [hook_id for hook_id, count in of_hook.items() if count >= limits.HOOK_SENDS_EACH_MAX]
        begun = 0
        while room := limits.HOOK_SENDS_MAX - len(self._sending):
            found = await self._store.due(
                now_ms=self._world.clock.now_ms(), limit=room, besides=self._sending, besides_hooks=full
            )
            for due in found:
                if of_hook[due.hook.id] < limits.HOOK_SENDS_EACH_MAX:
                    of_hook[due.hook.id] += 1
                    self._sending[due.delivery.id] = due.hook.id
                    group.create_task(self._send(due))
                    begun += 1
            full = [hook_id for hook_id, count in of_hook.items() if count >= limits.HOOK_SENDS_EACH_MAX]
            if len(found) < room:
                break
        return begun

    async def _send(self, due: Due) -> None:
        item, now_ms = due.delivery, self._world.clock.now_ms()
        about = {"overnight.hook.id": item.hook_id, "overnight.hook.delivery": item.id}
        span = self._world.tracer.begin("deliver hook", kind="client", attributes=about)
        trouble = "interrupted"
        try:
            body = hooks.body_to_send(item, public_url=self._public_url)
            headers = hooks.headers(item.id, body, due.secret, now_ms=now_ms)
            heard = await self._outward.post(due.hook.url, body, headers=headers)
            dice = self._world.entropy.uniform()
            became = hooks.after(item, heard, dice=dice, now_ms=self._world.clock.now_ms())
            trouble = "" if became.status == "delivered" else "refused"
            await self._note(became)
        finally:
            span.end(trouble=trouble)
            del self._sending[item.id]

    async def _note(self, item: Delivery) -> None:
        """Write it down however long that takes: what is not noted would be sent again."""
        while True:
            try:
                await self._store.note(item)
                break
            except StoreError as error:
                self.trouble = str(error)
                await asyncio.sleep(limits.HOOK_LOOK_S)
        if item.status == "delivered":
            log.info("%s of %s: delivered to %s", item.event, item.workspace, item.hook_id)
        else:
            level = logging.WARNING if item.status == "dead" else logging.INFO
            said = "given up" if item.status == "dead" else "failed, and is tried again"
            log.log(level, "%s to %s: attempt %d %s: %s", item.id, item.hook_id, item.attempts, said, item.trouble)

    async def _upkeep(self) -> None:
        now_ms = self._world.clock.now_ms()
        while self._events:
            await self._store.announce(self._events[0], now_ms=now_ms)
            del self._events[0]
        if now_ms >= self._upkeep_at_ms:
            await self._store.announce_expiring(now_ms=now_ms)
            self._upkeep_at_ms = now_ms + limits.UPKEEP_EVERY_MS
        if now_ms >= self._forget_at_ms:
            await self._store.forget(now_ms=now_ms)
            self._forget_at_ms = now_ms + limits.DELIVERIES_FORGET_MS


class NewHook(NamedTuple):
    """A hook as nobody will see it again: its secret is kept, and not shown."""

    hook: Hook
    secret: bytes


async def new_hook(
    workspace: WorkspaceId,
    url: str,
    events: Sequence[EventType],
    *,
    outward: Outward,
    world: World,
    hook_id: str = "",
) -> NewHook:
    """A hook that is not in the store yet. `hook_id`: the id that was drawn for it (`hook_id_drawn`). UsageError if
    the URL may not be asked."""
    await outward.target(url)
    hook = Hook(
        id=hook_id or hook_id_drawn(world),
        workspace=workspace,
        url=url,
        events=tuple(events),
        created_at_ms=world.clock.now_ms(),
    )
    return NewHook(hook, world.entropy.bytes(limits.HOOK_SECRET_BYTES))


def hook_id_drawn(world: World) -> str:
    """A new id of a hook."""
    return named("hook", world.entropy.bytes(ID_ENTROPY_BYTES))


async def tried(hook: Hook, secret: bytes, *, outward: Outward, world: World) -> Heard:
    """Post an event of type hook.test now, once, and tell what came back; nothing of it is written down."""
    now_ms = world.clock.now_ms()
    told = {"hook_id": hook.id, "workspace_id": hook.workspace}
    body = hooks.body_of(TEST_EVENT, told, now_ms=now_ms)
    delivery_id = named("delivery", world.entropy.bytes(ID_ENTROPY_BYTES))
    return await outward.post(hook.url, body, headers=hooks.headers(delivery_id, body, secret, now_ms=now_ms))
