"""JSON as text: what msgspec's `Raw` does not check, checked here.

`Raw` proves structure, numbers and escapes, but accepts invalid UTF-8 and keeps raw newlines
(docs/adr/0002). Every byte we will later serve inside a JSON line passes through one of these.
"""

from codecs import getincrementaldecoder

import msgspec

_PIECE_BYTES = 64 * 1024  # Decoded text of one piece stays in the CPU's cache; a whole body costs 5x the time.


def check_utf8(body: bytes | bytearray | memoryview) -> None:
    """Raise UnicodeDecodeError (a ValueError) at the first byte that is not UTF-8."""
    decoder = getincrementaldecoder("utf-8")()
    view = memoryview(body)
    for start in range(0, len(view), _PIECE_BYTES):
        decoder.decode(view[start : start + _PIECE_BYTES])
    decoder.decode(b"", final=True)


def on_one_line(json: bytes) -> bytes:
    """`json` without newlines between its tokens: as it came if there are none, else minified.

    Inside JSON strings newlines are always escaped, so a raw one is only layout. Raises UnicodeDecodeError.
    """
    if not json.isascii():
        check_utf8(json)
    if b"\n" in json or b"\r" in json:
        return msgspec.json.format(json, indent=-1)
    return json
