"""Names: how ids of batches, messages and HTTP requests look. No dice here: callers bring the entropy.

Shape after samples of the hosted API: a prefix, `01`, and 22 base58 characters.
A batch id begins with its creation time, so ids sort by age to the millisecond; nothing relies on it.
"""

import re
from typing import NewType

BatchId = NewType("BatchId", str)
WorkspaceId = NewType("WorkspaceId", str)

DEFAULT_WORKSPACE = WorkspaceId("wrkspc_01default")

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_CHARACTER_OF_BYTE = bytes(ord(_ALPHABET[byte % 58]) for byte in range(256))
ID_ENTROPY_BYTES = 22
BATCH_ID_ENTROPY_BYTES = 14  # Behind 8 characters of time.
_BATCH_ID = re.compile(r"msgbatch_[0-9A-Za-z]{10,64}")


def base58(number: int, *, width: int) -> str:
    """`number` in base 58, most significant digit first, padded or cut to `width` characters."""
    digits: list[str] = []
    for _ in range(width):
        number, digit = divmod(number, 58)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def drawn(entropy: bytes) -> str:
    """One base58 character for each byte: 0.2 µs, where dividing one large number costs 11.

    256 is no multiple of 58, so some characters are a little likelier: 5.8 bits a byte are left of 5.86.
    """
    return entropy.translate(_CHARACTER_OF_BYTE).decode("ascii")


def batch_id(now_ms: int, entropy: bytes) -> BatchId:
    """A new `msgbatch_…` id from `BATCH_ID_ENTROPY_BYTES` bytes: no two alike within a millisecond."""
    return BatchId(f"msgbatch_01{base58(now_ms, width=8)}{drawn(entropy)}")


def message_id(entropy: bytes) -> str:
    """A new `msg_…` id for an answer that an engine did not name itself, from `ID_ENTROPY_BYTES` bytes."""
    return f"msg_01{drawn(entropy)}"


def http_request_id(entropy: bytes) -> str:
    """A new `req_…` id, the value of the `request-id` header, from `ID_ENTROPY_BYTES` bytes."""
    return f"req_01{drawn(entropy)}"


def is_batch_id(text: str) -> bool:
    """Whether `text` could be a batch id at all; saves a lookup and keeps odd text out of paths."""
    return _BATCH_ID.fullmatch(text) is not None
