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
_BATCH_ID = re.compile(r"msgbatch_[0-9A-Za-z]{10,64}")


def base58(number: int, *, width: int) -> str:
    """`number` in base 58, most significant digit first, padded or cut to `width` characters."""
    digits: list[str] = []
    for _ in range(width):
        number, digit = divmod(number, 58)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def _dated(prefix: str, now_ms: int, entropy: bytes) -> str:
    return f"{prefix}_01{base58(now_ms, width=8)}{base58(int.from_bytes(entropy), width=14)}"


def batch_id(now_ms: int, entropy: bytes) -> BatchId:
    """A new `msgbatch_…` id. 10 bytes of entropy or more make a collision within one ms negligible."""
    return BatchId(_dated("msgbatch", now_ms, entropy))


def message_id(entropy: bytes) -> str:
    """A new `msg_…` id for an answer that an engine did not name itself."""
    return f"msg_01{base58(int.from_bytes(entropy), width=22)}"


def http_request_id(entropy: bytes) -> str:
    """A new `req_…` id, the value of the `request-id` header."""
    return f"req_01{base58(int.from_bytes(entropy), width=22)}"


def is_batch_id(text: str) -> bool:
    """Whether `text` could be a batch id at all; saves a lookup and keeps odd text out of paths."""
    return _BATCH_ID.fullmatch(text) is not None
