"""What `overnight doctor` asks of others: the server, the engines, the clock. Nothing of that costs anything."""

import json
import os
import socket
import zoneinfo
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from overnight import __version__
from overnight.cli.checkup import Answer, Finding, Findings, asked, fail, ok, warn
from overnight.core import offpeak
from overnight.errors import UsageError
from overnight.ports.clock import Clock
from overnight.server.config import EngineSettings, Settings, is_loopback

_CLOCK_APART_S: Final = 30.0  # Leases run out after 30 s; certificates and signatures bear a few minutes.
_CLAUDE_URL: Final = "https://api.anthropic.com"
_VERSION: Final = {"anthropic-version": "2023-06-01"}


def of_server(url: str, settings: Settings, *, key: str, is_given: bool, clock: Clock) -> Findings:
    """Whether a server answers at `url`, is of this version, well, and takes our key. `is_given`: somebody says that
    there is one; otherwise the port may as well be free."""
    answer = asked(f"{url}/health")
    health = _object(answer)
    if not answer.status and not is_given:
        yield _port(settings)
        return
    if not answer.status:
        yield fail("server", f"{url} is not reached: {answer.trouble}", "start it, or name another with --url")
        return
    if "version" not in health:
        todo = "another program has this address: choose another with --listen, or name the server with --url"
        yield fail("server", f"{url} answers, and is no overnight (status {answer.status})", todo)
        return
    yield from _health(health)
    yield _clock(url, answer, clock)
    yield _key(url, key)


def _port(settings: Settings) -> Finding:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.create_server((settings.host, settings.port), family=family):
            return ok("port", f"{settings.listen} is free; no server runs")
    except OSError as error:
        todo = "choose another address with --listen, or end the program that has this one"
        return fail("port", f"cannot listen on {settings.listen}: {error.strerror}", todo)


def _health(health: Mapping[str, Any]) -> Findings:
    version = str(health["version"])[:40]
    if version == __version__:
        yield ok("version", f"the server and this command are {version}")
    else:
        said = f"the server is {version}, this command is {__version__}"
        yield warn("version", said, "restart the server after an upgrade, or use the command of its installation")
    trouble = health.get("trouble") or {}
    status = str(health.get("status"))[:40]
    if status == "ok":
        yield ok("health", "ok")
    for what, said in trouble.items():
        make = fail if status == "failing" else warn
        yield make(
            "health", f"{what}: {said}", "the server tries again by itself; see docs/how-to/troubleshooting.md"
        )


def _clock(url: str, answer: Answer, clock: Clock) -> Finding:
    try:
        theirs_s = parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except ValueError:
        return warn("clock", f"{url} does not say what time it is", "compare the clocks by hand")
    apart_s = clock.now_ms() / 1000 - theirs_s
    if abs(apart_s) > _CLOCK_APART_S:
        todo = "set both by NTP: batches expire, and keys end, by the clock"
        return fail("clock", f"{abs(apart_s):,.0f} s {'ahead of' if apart_s > 0 else 'behind'} {url}", todo)
    return ok(
        "clock", "as the server's, to the second" if abs(apart_s) < 2 else f"{apart_s:+.0f} s from the server's"
    )


def _key(url: str, key: str) -> Finding:
    path = f"{url}/v1/messages/batches?limit=1"
    if asked(path, headers=_VERSION).status == 200:
        return ok("key", "none is needed")
    if not key:
        return warn(
            "key", "one is needed, and none is set", "set ANTHROPIC_API_KEY; `overnight keys create` makes one"
        )
    answer = asked(path, headers={**_VERSION, "x-api-key": key})
    if answer.status == 200:
        return ok("key", "ANTHROPIC_API_KEY opens a workspace")
    todo = "make another with `overnight keys create`" if answer.status == 401 else "look at the log of the server"
    return fail("key", f"the server answers {answer.status or answer.trouble} to ANTHROPIC_API_KEY", todo)


def of_public_url(settings: Settings) -> Findings:
    """Whether clients can fetch results by the URL that they are told."""
    if not settings.public_url:
        if not is_loopback(settings.host):
            todo = "set --public-url if clients reach it by another name, or through a proxy"
            yield warn("public URL", "not set: clients are told the host they called", todo)
        return
    url = settings.public_url.rstrip("/")
    answer = asked(f"{url}/health")
    if "version" in _object(answer):
        yield ok("public URL", f"{url} leads to an overnight")
    else:
        said = f"{url}/health: {answer.trouble or f'status {answer.status}, and it is no overnight'}"
        yield fail(
            "public URL", said, "clients fetch results there: correct it, or the proxy (docs/how-to/reverse-proxy.md)"
        )


def of_time_zones(settings: Settings) -> Findings:
    """Whether the hours of engines can be read."""
    try:
        zoneinfo.ZoneInfo("Europe/Berlin")
    except zoneinfo.ZoneInfoNotFoundError:
        todo = "install the package tzdata, of the system or of Python"
        make = fail if any(engine.hours for engine in settings.engines) else warn
        yield make("time zones", "there is no timezone data", todo)
        return
    yield ok("time zones", "known")


# --- Engines --------------------------------------------------------------------------------------------------------


def of_engines(settings: Settings, environment: Mapping[str, str] = os.environ) -> Findings:
    """Whether each engine is there and takes its key; nothing is generated."""
    for engine in settings.engines:
        for spec in (engine.spec, *engine.replicas):
            yield _engine(spec, engine, environment)


def _engine(spec: str, settings: EngineSettings, environment: Mapping[str, str]) -> Finding:
    check = f"engine {spec}"
    if spec == "embedded" or spec.startswith("hf:"):
        return ok(check, "in the process of the server")
    if spec.endswith(".gguf"):
        if os.access(spec, os.R_OK):
            return ok(check, "the file is there")
        return fail(
            check, "there is no such file, or it cannot be read", "correct the path, or the rights of the file"
        )
    url = _CLAUDE_URL if spec in ("claude", "claude-batch") else spec.partition("+")[2] or spec
    variable = settings.api_key_env or ("ANTHROPIC_API_KEY" if url == _CLAUDE_URL else "")
    key = settings.api_key or environment.get(variable, "")
    if variable and not key:
        return fail(check, f"the environment variable {variable} is not set", "set it where the server is started")
    return _listing(check, url.rstrip("/"), key)


def _listing(check: str, url: str, key: str) -> Finding:
    headers = {**_VERSION, **({"x-api-key": key, "authorization": f"Bearer {key}"} if key else {})}
    if url == _CLAUDE_URL:
        headers.pop("authorization", None)  # It takes one of the two.
    answer = asked(f"{url}/v1/models", headers=headers)
    if not answer.status:
        return fail(check, f"not reached: {answer.trouble}", "start it, or correct its address")
    if answer.status in (401, 403):
        return fail(
            check, f"it refuses our key (status {answer.status})", "set api_key_env of this engine, or renew the key"
        )
    models = _object(answer).get("data")
    if answer.status != 200 or not isinstance(models, list):
        todo = "nothing, if it has no list; otherwise correct its address"
        return warn(check, f"it is there, and lists no models (status {answer.status})", todo)
    names = ", ".join(str(item.get("id"))[:60] for item in models[:5] if isinstance(item, dict))
    return ok(check, f"{len(models):,} models: {names}{', …' if len(models) > 5 else ''}")


def _object(answer: Answer) -> Mapping[str, Any]:
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def hours_of(settings: Settings, clock: Clock) -> Findings:
    """When engines with hours open next."""
    for engine in settings.engines:
        if engine.hours:
            try:
                hours = offpeak.parse(engine.hours, engine.time_zone)
            except UsageError as error:
                yield fail(f"hours of {engine.spec}", str(error), "correct `hours` or `time_zone`")
            else:
                yield ok(f"hours of {engine.spec}", offpeak.shown(hours, clock.now_ms()))
