"""The one door to traces: what a piece of work was part of, how long it took, and how it ended.

Nothing is traced unless the operator asks for it (`server.traces`). Parents and links are W3C `traceparent` texts
(https://www.w3.org/TR/trace-context/) and always given: work of batches belongs to no caller's context.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol, TypeAlias

Value: TypeAlias = str | int | float | bool
Kind: TypeAlias = Literal["internal", "server", "client"]
NOTHING: Final[Mapping[str, Value]] = {}


class Span(Protocol):
    """One piece of work, from `begin` to `end`."""

    @property
    def traceparent(self) -> str:
        """For headers of others and as `parent`; empty if nothing is traced."""
        ...

    def note(self, attributes: Mapping[str, Value], *, name: str = "") -> None:
        """What has become known of it, and a better name, if there is one."""
        ...

    def end(self, *, trouble: str = "") -> None:
        """It is over; once. `trouble`: the kind of error it ended in, never its text, which may repeat a prompt."""
        ...


class Tracer(Protocol):
    """Where spans come from."""

    @property
    def is_on(self) -> bool:
        """Whether anybody wants them; asked before anything is prepared for a span."""
        ...

    def begin(
        self,
        name: str,
        *,
        kind: Kind = "internal",
        parent: str = "",
        links: Sequence[str] = (),
        attributes: Mapping[str, Value] = NOTHING,
    ) -> Span:
        """A span that begins now. A `parent` or link that is no traceparent is none."""
        ...

    def close(self) -> None:
        """Send what has not been sent; blocks for some seconds at most."""
        ...


class NoSpan:
    """A span that nobody wants."""

    traceparent = ""

    def note(self, attributes: Mapping[str, Value], *, name: str = "") -> None:
        pass

    def end(self, *, trouble: str = "") -> None:
        pass


NO_SPAN: Final = NoSpan()


class NoTracer:
    """Nobody is watching."""

    is_on = False

    def begin(
        self,
        name: str,
        *,
        kind: Kind = "internal",
        parent: str = "",
        links: Sequence[str] = (),
        attributes: Mapping[str, Value] = NOTHING,
    ) -> Span:
        return NO_SPAN

    def close(self) -> None:
        pass


NO_TRACER: Final = NoTracer()
