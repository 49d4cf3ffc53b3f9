"""A Message Batches server as a job sees it: bytes out, values in. Ours or the hosted one.

Nothing is tried again here: what an outcome means is decided where it can be written down first.
https://platform.claude.com/docs/en/api/creating-message-batches
"""

from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import NamedTuple, TypeAlias, TypeVar
from urllib.parse import urlencode

import httpx2
import msgspec
from msgspec.structs import replace

from overnight import __version__, limits
from overnight.jobs.endpoint import Address

_PATH = "/v1/messages/batches"
_RETRY_AFTER_S = 5.0  # Where a busy server does not say.
_SPENT = ("enforced_spend_limit_reached", "contract_spend_limit_reached")  # `error_code` of a spend limit,
_SPENT_WORDS = "You have reached your specified"  # and what the hosted API says where it gives none.
_LINE_BYTES_MAX = limits.ENGINE_REPLY_BYTES_MAX  # One result; a server that never sends a newline fills no memory.


class Refused(NamedTuple):
    """The server said no, and did nothing. `error_type` is "" where it is no error of the API."""

    status: int
    error_type: str
    message: str

    @property
    def reason(self) -> str:
        """What every kind of failure has."""
        return self.message


class Busy(NamedTuple):
    """The server did nothing, and wants to be asked later."""

    seconds: float
    reason: str


class Unknown(NamedTuple):
    """Nobody knows whether the server did it: a time-out, a reset, an error of its own."""

    reason: str


class NotReached(NamedTuple):
    """No connection: the server has not seen the request."""

    reason: str


T = TypeVar("T")
Failure: TypeAlias = Refused | Busy | Unknown | NotReached


class Broken(Exception):
    """A download broke off. What was read before it is good."""


class ShownBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as any server may show it: a status that is unknown here is no error."""

    id: str
    processing_status: str
    request_counts: dict[str, int]
    created_at: str
    ended_at: str | None = None
    expires_at: str = ""
    results_url: str | None = None
    waiting: str = ""  # Why nothing of it runs, where the server says so.

    def count(self, name: str) -> int:
        """One of the five counts."""
        return self.request_counts.get(name, 0)

    @property
    def total(self) -> int:
        """All requests of it."""
        return sum(self.request_counts.values())


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One page of batches, newest first."""

    data: list[ShownBatch]
    has_more: bool
    last_id: str | None = None


class Listed(NamedTuple):
    """A page, whether the server honours Idempotency-Key, and the time of its clock (ms; None: it does not say)."""

    page: Page
    is_ours: bool
    clock_ms: int | None


class _Details(msgspec.Struct):
    error_code: str = ""


_NO_DETAILS = _Details()


class _Problem(msgspec.Struct):
    type: str = ""
    message: str = ""
    details: _Details | None = None


class _Envelope(msgspec.Struct):
    error: _Problem = msgspec.field(default_factory=_Problem)


class Server:
    """A connection to one server. Close it, or use it in a `with`."""

    def __init__(self, address: Address) -> None:
        headers = {"anthropic-version": "2023-06-01", "user-agent": f"overnight/{__version__}"}
        if address.key:
            headers["x-api-key"] = address.key
        if address.betas:
            headers["anthropic-beta"] = ",".join(address.betas)
        self.address = address
        self._http = httpx2.Client(
            base_url=address.base_url,
            headers=headers,
            timeout=httpx2.Timeout(limits.JOB_HTTP_READ_S, connect=limits.JOB_HTTP_CONNECT_S),
            follow_redirects=False,
        )

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()

    def create(self, body: bytes, *, idempotency_key: str) -> ShownBatch | Failure:
        """POST a batch. `idempotency_key` makes a second try harmless where the server honours it."""
        headers = {"content-type": "application/json", "idempotency-key": idempotency_key}
        return self._asked("POST", _PATH, ShownBatch, content=body, headers=headers)

    def retrieve(self, batch_id: str) -> ShownBatch | Failure:
        """One batch as it is now."""
        found = self._response("GET", f"{_PATH}/{batch_id}", {})
        if not isinstance(found, httpx2.Response):
            return found
        shown = _decoded(found, ShownBatch)
        if not isinstance(shown, ShownBatch):
            return shown
        return replace(shown, waiting=found.headers.get("overnight-waiting", ""))

    def engines(self) -> bytes | Failure:
        """What a server of ours says of its engines and of what waits, as JSON."""
        found = self._response("GET", "/v1/overnight/status", {})
        return found.content if isinstance(found, httpx2.Response) else found

    def usage(self, query: dict[str, str]) -> bytes | Failure:
        """What a server of ours says of what was used, as JSON; `query` as its `/v1/overnight/usage` takes it."""
        found = self._response("GET", f"/v1/overnight/usage?{urlencode(query)}", {})
        return found.content if isinstance(found, httpx2.Response) else found

    def usage_of(self, batch_id: str) -> bytes | Failure:
        """What one batch of a server of ours took, as JSON."""
        found = self._response("GET", f"/v1/overnight/batches/{batch_id}/usage", {})
        return found.content if isinstance(found, httpx2.Response) else found

    def cancel(self, batch_id: str) -> ShownBatch | Failure:
        """Ask to cancel a batch; it ends some time later."""
        return self._asked("POST", f"{_PATH}/{batch_id}/cancel", ShownBatch)

    def delete(self, batch_id: str) -> bool:
        """Delete an ended batch; whether the server did."""
        return self._response("DELETE", f"{_PATH}/{batch_id}", {}).__class__ is httpx2.Response

    def list(self, *, after_id: str | None = None) -> Listed | Failure:
        """A page of batches, newest first: up to 1,000, or as many as a server gives."""
        query = f"?limit={limits.LIST_LIMIT_MAX}" + (f"&after_id={after_id}" if after_id else "")
        found = self._response("GET", f"{_PATH}{query}", {})
        if not isinstance(found, httpx2.Response):
            return found
        page = _decoded(found, Page)
        if not isinstance(page, Page):
            return page
        return Listed(page, "overnight-version" in found.headers, _clock_ms(found.headers.get("date")))

    def message(self, params: bytes) -> bytes | Failure:
        """One answer in real time: a Message as it came."""
        headers = {"content-type": "application/json"}
        found = self._response("POST", "/v1/messages", headers, content=params)
        return found.content if isinstance(found, httpx2.Response) else found

    @contextmanager
    def results(self, batch_id: str) -> Iterator[Iterator[bytes] | Failure]:
        """The lines of an ended batch, as they come in. Iterating raises Broken where the connection breaks."""
        try:
            with self._http.stream("GET", f"{_PATH}/{batch_id}/results") as response:
                if response.status_code != 200:
                    response.read()
                    yield _failure(response)
                else:
                    yield _lines(response)
        except httpx2.TransportError as error:
            yield Unknown(_said(error))

    def _asked(
        self, method: str, path: str, kind: type[ShownBatch], *, content: bytes | None = None, headers: object = None
    ) -> ShownBatch | Failure:
        found = self._response(method, path, headers or {}, content=content)
        return _decoded(found, kind) if isinstance(found, httpx2.Response) else found

    def _response(
        self, method: str, path: str, headers: object, *, content: bytes | None = None
    ) -> httpx2.Response | Failure:
        try:
            response = self._http.request(method, path, headers=headers, content=content)  # type: ignore[arg-type]
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            return NotReached(_said(error))
        except httpx2.TransportError as error:
            return Unknown(_said(error))
        return response if response.status_code == 200 else _failure(response)


def _decoded(response: httpx2.Response, kind: type[T]) -> T | Unknown:
    try:
        return msgspec.json.decode(response.content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Unknown(f"the server answered 200 with something else: {error}")


def _lines(response: httpx2.Response) -> Iterator[bytes]:
    rest = b""
    try:
        for piece in response.iter_bytes():
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > _LINE_BYTES_MAX:
                raise Broken(f"a line of results is longer than {_LINE_BYTES_MAX} bytes")
            yield from (line for line in lines if line.strip())
    except (httpx2.TransportError, httpx2.DecodingError) as error:
        raise Broken(_said(error)) from error
    if rest.strip():
        yield rest


def _failure(response: httpx2.Response) -> Failure:
    problem = _problem(response)
    message = problem.message or f"HTTP {response.status_code}"
    if (problem.details or _NO_DETAILS).error_code in _SPENT or message.startswith(_SPENT_WORDS):
        return Refused(response.status_code, "billing_error", message)  # No request is wrong, and none will pass.
    if response.status_code == 429:
        return Busy(_seconds(response.headers.get("retry-after")), message)
    if response.status_code in (408, 409) and response.headers.get("x-should-retry") != "false":
        return Unknown(message)
    if response.status_code >= 500 or response.status_code < 400:
        return Unknown(f"{response.status_code}: {message}")
    return Refused(response.status_code, problem.type, message)


def _problem(response: httpx2.Response) -> _Problem:
    try:
        return msgspec.json.decode(response.content, type=_Envelope).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Problem(message=f"HTTP {response.status_code}: {response.text[:200].strip()}")


def _seconds(retry_after: str | None) -> float:
    try:
        return min(max(0.0, float(retry_after or _RETRY_AFTER_S)), limits.RETRY_AFTER_MS_MAX / 1000)
    except ValueError:
        return _RETRY_AFTER_S


def _clock_ms(date: str | None) -> int | None:
    try:
        return int(parsedate_to_datetime(date).timestamp() * 1000) if date else None
    except ValueError:
        return None


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
