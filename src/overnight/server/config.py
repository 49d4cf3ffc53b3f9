"""The settings of a server: one frozen struct, from one TOML file, then environment, then flags.

Only what differs between installations is here; what the API promises is in `limits`. An unknown key or a bad value
stops the start and names the key and where it came from. `overnight config` prints the effective values.
"""

import ipaddress
import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from overnight.core import offpeak
from overnight.core.offpeak import Signal
from overnight.core.workspace import Role
from overnight.errors import UsageError
from overnight.ids import DEFAULT_WORKSPACE
from overnight.limits import BUDGET_USD_MAX, HOUR_USD_MAX, PRICE_USD_MAX
from overnight.server import logs

ENVIRONMENT_PREFIX = "OVERNIGHT_"
_MAY_HOLD_SECRETS = ("api_key", "keys", "engines", "public_url")  # Never repeated when they are wrong.


class PriceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model costs in real time, USD for a million tokens."""

    input: Annotated[float, Meta(ge=0, le=PRICE_USD_MAX)]  # Input that the prompt cache has nothing to do with.
    output: Annotated[float, Meta(ge=0, le=PRICE_USD_MAX)]
    cache_read: Annotated[float, Meta(ge=0, le=PRICE_USD_MAX)] | None = None  # None: as `input`.
    cache_write: Annotated[float, Meta(ge=0, le=PRICE_USD_MAX)] | None = None  # For 5 minutes. None: as `input`.
    cache_write_1h: Annotated[float, Meta(ge=0, le=PRICE_USD_MAX)] | None = None  # None: as `cache_write`.
    web_searches: Annotated[float, Meta(ge=0, le=PRICE_USD_MAX)] = (
        0.0  # A thousand of them; never cheaper in a batch.
    )
    batch: Annotated[float, Meta(ge=0, le=1)] = 0.5  # The share of a price of tokens that is paid in a batch.


class ListedPrice(PriceSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same with the day it begins."""

    since: date | None = msgspec.field(default=None, name="from")  # Of UTC; None: since ever.


PriceList: TypeAlias = dict[str, ListedPrice | list[ListedPrice]]  # By patterns of models, such as `claude-*`.


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One engine. `spec`: see `server.build`, such as embedded, PATH.gguf, [chat+]http(s)://…, claude, claude-batch.

    Engines stand in order of preference: a later one that serves the same model helps while those before it are away,
    or a deadline is in danger.
    """

    spec: str
    replicas: list[str] = []  # More of the same, elsewhere: specs of the same kind.
    models: list[str] = []  # Patterns it is asked for; empty: all names it serves, or `*` for a server.
    aliases: dict[str, str] = {}  # Names that callers use, and what this engine calls them.
    shared: bool = False  # It takes its part of the work also while engines before it can do it.
    hours: list[str] = []  # When it may be used for batches, such as "22:00-06:00"; empty: always.
    time_zone: str = ""  # Of `hours`, an IANA name.
    signal: Signal | None = None  # A price, or the carbon of power, that it is used up to.
    api_key: str = ""  # Of the upstream. Prefer `api_key_env`: a file with a key in it leaks.
    api_key_env: str = ""
    budget_usd_per_day: Annotated[float, Meta(gt=0, le=BUDGET_USD_MAX)] | None = None  # For batches, a day of UTC.
    prices: dict[str, PriceSettings] = {}  # Of models as the engine calls them, in the place of what is known.
    usd_per_hour: Annotated[float, Meta(gt=0, le=HOUR_USD_MAX)] | None = (
        None  # Own hardware: what each replica costs.
    )
    in_flight_max: Annotated[int, Meta(ge=1, le=4096)] | None = None  # None: 4 embedded, found out for a server.
    context_tokens: Annotated[int, Meta(ge=64)] | None = None  # Embedded only, per request.
    threads: Annotated[int, Meta(ge=1)] | None = None  # Embedded only.


class KeySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One API key and the workspace it opens. `sha256` is the hex digest of the key. `overnight keys` makes more,
    with names and an end."""

    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    workspace: Annotated[str, Meta(pattern="^wrkspc_[0-9A-Za-z]{1,64}$")] = DEFAULT_WORKSPACE
    role: Role = "workspace"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything an operator can set."""

    listen: str = "127.0.0.1:8642"
    data: str = "overnight-data"
    engines: Annotated[list[EngineSettings], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: [EngineSettings(spec="embedded")]
    )
    api_key: str = ""  # One key for the default workspace; meant for the environment.
    keys: list[KeySettings] = []
    public_url: Annotated[str, Meta(pattern="^(https?://[^ ]+)?$")] = ""  # What results_url begins with.
    trusted_proxies: list[str] = msgspec.field(  # Whose X-Forwarded-* headers count.
        default_factory=lambda: ["127.0.0.1/32", "::1/128"]
    )
    request_counts: Literal["live", "at_end"] = "live"  # at_end: zeros until the end, as the hosted API.
    strict_version: bool = True  # Refuse requests without anthropic-version, as the hosted API.
    strict_params: bool = False  # Refuse unknown fields in params, as the hosted API.
    requests_per_minute: Annotated[int, Meta(ge=1)] | None = None  # Per workspace, on the batch endpoints.
    deduplicate: bool = False  # Ask requests that are equal to the byte once, if their temperature is 0.
    weights: dict[str, Annotated[float, Meta(gt=0)]] = {}  # Of workspaces, in the fairness between them.
    log_format: logs.Format = "text"  # json: for collectors.
    log_level: logs.Level = "info"
    metrics_by_workspace: bool = False  # Admins, and this machine, read what each workspace has unfinished.
    prices: PriceList = {}  # Of models, in the place of what is known; engines and jobs have their own before it.
    prices_file: str = ""  # A TOML file with more of them: the same tables.
    hooks_to_private_addresses: bool = False  # Hooks may lead to this machine and its network; else to public ones.

    @property
    def host(self) -> str:
        """The address to listen on."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port to listen on; 0 picks a free one."""
        return int(self.listen.rpartition(":")[2])


class Loaded(msgspec.Struct, frozen=True):
    """The settings, and where each one came from: `default`, a file, a variable, or a flag."""

    settings: Settings
    origins: Mapping[str, str]


def load(file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> Loaded:
    """The effective settings. Later sources win: file, environment (`OVERNIGHT_…`), flags. UsageError if wrong."""
    values: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.__struct_fields__, "default")
    for origin, found in (*_from_file(file), *_from_environment(environment), *_from_flags(flags)):
        for name, value in found.items():
            _check_one(name, value, origin)
            values[name], origins[name] = value, origin
    settings = msgspec.convert(values, Settings, strict=False)
    _check_together(settings, origins)
    return Loaded(settings, origins)


def _from_file(file: Path | None) -> list[tuple[str, dict[str, Any]]]:
    if file is None:
        return []
    try:
        return [(str(file), tomllib.loads(file.read_text(encoding="utf-8")))]
    except OSError as error:
        raise UsageError(f"cannot read the configuration {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not valid TOML: {error}") from error


def _from_environment(environment: Mapping[str, str]) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    for name in Settings.__struct_fields__:
        variable = ENVIRONMENT_PREFIX + name.upper()
        if variable in environment:
            text = environment[variable]
            value = [{"spec": spec} for spec in text.split()] if name == "engines" else text
            found.append((f"${variable}", {name: text.split() if name == "trusted_proxies" else value}))
    return found


def _from_flags(flags: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"--{name.replace('_', '-')}", {name: value}) for name, value in flags.items()]


def _check_one(name: str, value: Any, origin: str) -> None:
    if name not in Settings.__struct_fields__:
        known = ", ".join(Settings.__struct_fields__)
        raise UsageError(f"{origin}: there is no setting {name!r}; the settings are {known}")
    try:
        msgspec.convert({name: value}, Settings, strict=False)
    except msgspec.ValidationError as error:
        shown = "" if name in _MAY_HOLD_SECRETS else f" (it is {value!r})"
        raise UsageError(f"{origin}: {name}: {error}{shown}") from error


def _check_together(settings: Settings, origins: Mapping[str, str]) -> None:
    host, _, port = settings.listen.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise UsageError(f"{origins['listen']}: listen: {settings.listen!r} is not HOST:PORT")
    _check_urls(settings, origins)
    for network in settings.trusted_proxies:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise UsageError(f"{origins['trusted_proxies']}: trusted_proxies: {error}") from error
    for engine in settings.engines:
        try:
            offpeak.parse(engine.hours, engine.time_zone)
            if engine.signal is not None:
                offpeak.check(engine.signal)
            _check_hour(engine)
        except UsageError as error:
            raise UsageError(f"{origins['engines']}: engine {engine.spec}: {error}") from error


def _check_urls(settings: Settings, origins: Mapping[str, str]) -> None:
    """UsageError, which does not repeat it, for a password in a URL that is shown to people."""
    specs = [spec for engine in settings.engines for spec in (engine.spec, *engine.replicas)]
    if any(_has_user(spec) for spec in specs):
        raise UsageError(
            f"{origins['engines']}: engines: the address of an engine holds a user name or password: "
            "give a key instead, by api_key_env"
        )
    if _has_user(settings.public_url):
        raise UsageError(
            f"{origins['public_url']}: public_url: it holds a user name or password, and everybody sees it"
        )


def _has_user(url: str) -> bool:
    return "@" in url.partition("://")[2].partition("/")[0]


def _check_hour(engine: EngineSettings) -> None:
    if engine.usd_per_hour is None:
        return
    if engine.spec.startswith("claude-batch"):
        raise UsageError("usd_per_hour: what goes to a batch endpoint takes no hours of a machine; use prices")
    if engine.prices or engine.budget_usd_per_day is not None:
        raise UsageError("usd_per_hour: an engine is paid by the hour or by the token, not both (prices, budget)")


def read_prices(file: str) -> PriceList:
    """The price list of a file. UsageError if it cannot be read, or is none."""
    try:
        return msgspec.convert(tomllib.loads(Path(file).read_text(encoding="utf-8")), PriceList)
    except OSError as error:
        raise UsageError(f"prices_file: cannot read {file}: {error.strerror}") from error
    except ValueError as error:  # No UTF-8, no TOML, no prices.
        raise UsageError(f"prices_file: {file} is no price list: {error}") from error


def check_reachable(settings: Settings, *, has_key: bool) -> None:
    """UsageError if others than this machine could come in without a key."""
    if not is_loopback(settings.host) and not has_key:
        raise UsageError(
            f"listening on {settings.host} would let anybody on the network in: make a key with `overnight keys "
            "create`, set OVERNIGHT_API_KEY or [[keys]], or listen on 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
