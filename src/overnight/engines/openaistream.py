"""The data of server-sent events, out of the pieces a network makes of them. Pure.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, as far as chat/completions servers use it: one
`data:` line an event, comments to keep the line alive (OpenRouter), `[DONE]` at the end.
"""

from typing import Final

EVENT_BYTES_MAX: Final = 1024 * 1024  # One chunk; the longest known ones carry the whole input of a tool call.
_DONE: Final = b"[DONE]"


class TooLong(ValueError):
    """A line of a stream that does not end."""


class Lines:
    """Cuts a stream into the data of its events."""

    def __init__(self) -> None:
        self._tail = b""
        self.is_done = False  # The server said that nothing follows.

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that `piece` completes. Raises TooLong beyond `EVENT_BYTES_MAX`."""
        *whole, self._tail = (self._tail + piece).split(b"\n")
        if len(self._tail) > EVENT_BYTES_MAX:
            raise TooLong(f"an event of the stream is longer than {EVENT_BYTES_MAX} bytes")
        found = [line[5:].strip() for line in whole if line.startswith(b"data:")]
        self.is_done = self.is_done or _DONE in found
        return [data for data in found if data and data != _DONE]
