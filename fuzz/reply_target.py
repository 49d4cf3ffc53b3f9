"""The parser of engines' answers without a network: bytes in, one reply or one error out."""

import asyncio
from dataclasses import dataclass

from choices import Choices

from overnight.core.retry import Answered, Broken, Busy, Refused
from overnight.engines import replies
from overnight.engines.connection import Connection, Exchange
from overnight.engines.transport import Reply, TransportError

_FIRST = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class _Nobody:
    """An owner that keeps no pool, and a socket that leads nowhere."""

    def __init__(self) -> None:
        self.is_idle = self.is_closed = False

    def on_made(self, connection: Connection) -> None:
        pass

    def on_idle(self, connection: Connection) -> None:
        self.is_idle = True

    def on_lost(self, connection: Connection) -> None:
        pass

    def wake_at(self, deadline_s: float) -> None:
        pass

    def write(self, data: bytes) -> None:
        pass

    def abort(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


@dataclass
class _Seen:
    """What became of an answer. The words of an error may depend on where the pieces end."""

    reply: Reply | None
    error: type[TransportError] | None
    is_kept: bool


def check(data: bytes) -> None:
    """The same bytes whole, byte by byte and in pieces: the same outcome, on a new connection and on a used one."""
    choices = Choices(data)
    is_used = bool(choices.number(2))
    cuts = [choices.number(64) + 1 for _ in range(choices.number(8))]
    stream = choices.rest()
    pieces, rest = [], stream
    for length in cuts:
        pieces.append(rest[:length])
        rest = rest[length:]
    seen = [
        _settle([piece for piece in parts if piece], is_used=is_used)
        for parts in ([stream], [stream[place : place + 1] for place in range(len(stream))], [*pieces, rest])
    ]
    # A connection that is closed because of what came behind a whole answer may be closed a piece later.
    assert all((one.reply, one.error) == (seen[0].reply, seen[0].error) for one in seen), seen
    assert not (seen[0].is_kept and seen[0].reply is None), "kept after a failure"


def _settle(pieces: list[bytes], *, is_used: bool) -> _Seen:
    nobody = _Nobody()
    connection = Connection(nobody)
    connection.connection_made(nobody)  # type: ignore[arg-type]  As much of a transport as it needs.
    if is_used:
        first = _exchange(connection)
        connection.data_received(_FIRST)
        assert first.reply.result().body == b"ok"
    exchange = _exchange(connection)
    nobody.is_idle = False
    for piece in pieces:
        if nobody.is_closed:
            break
        connection.data_received(piece)
    is_kept = nobody.is_idle and not nobody.is_closed
    if not nobody.is_closed:
        connection.eof_received()
    connection.connection_lost(None)
    assert exchange.reply.done(), "neither a reply nor an error"
    error = exchange.reply.exception()
    if error is None:
        return _Seen(exchange.reply.result(), None, is_kept)
    assert isinstance(error, TransportError), error
    return _Seen(None, type(error), is_kept)


_loop = asyncio.new_event_loop()


def _exchange(connection: Connection) -> Exchange:
    exchange = Exchange(_loop.create_future(), None)
    connection.begin(exchange, b"request", b"", 1.0)
    return exchange


_KEY = "sk-1"


class _Noon:
    def now_ms(self) -> int:
        return 1_800_000_000_000


def check_outcome(status: int, body: bytes) -> None:
    """An outcome for every status, body and `retry-after`, without the key in it, and with a wait within bounds."""
    asked = body[:60].decode("latin-1")
    reply = Reply(
        status=status, headers={"retry-after": asked, "content-type": "text/plain"}, body=_KEY.encode() + body
    )
    outcome = replies.outcome_of(reply, clock=_Noon(), secret=_KEY)
    match outcome:
        case Answered():
            assert status == 200
        case Refused(message=said) | Broken(reason=said) | Busy(reason=said):
            assert _KEY not in said
    if isinstance(outcome, Busy):
        assert outcome.retry_after_ms is None or 0 <= outcome.retry_after_ms <= 3_600_000
