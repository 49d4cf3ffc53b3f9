"""Names: how ids of batches, messages and HTTP requests look. No dice here: callers bring the entropy.

Shape after samples of the hosted API: a prefix, `01`, and 22 base58 characters.
A batch id begins with its creation time, so ids sort by age to the millisecond; nothing relies on it.
"""

import re
from typing import Literal, NewType

BatchId = NewType("BatchId", str)
WorkspaceId = NewType("WorkspaceId", str)

DEFAULT_WORKSPACE = WorkspaceId("wrkspc_01default")

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_CHARACTER_OF_BYTE = bytes(ord(_ALPHABET[byte % 58]) for byte in range(256))
ID_ENTROPY_BYTES = 22
BATCH_ID_ENTROPY_BYTES = 14  # Behind 8 characters of time.
KEY_ENTROPY_BYTES = 83
_KEY_PREFIXES = {"workspace": "sk-ant-api03-", "admin": "sk-ant-admin01-"}
_KEY = re.compile(r"sk-ant-(api03|admin01)-[0-9A-Za-z_-]{93}AA")
_WORKSPACE_ID = re.compile(r"wrkspc_[0-9A-Za-z]{1,64}")  # As `[[keys]]` of the settings take it.
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


def workspace_id(entropy: bytes) -> WorkspaceId:
    """A new `wrkspc_…` id from `ID_ENTROPY_BYTES` bytes."""
    return WorkspaceId(f"wrkspc_01{drawn(entropy)}")


def is_workspace_id(text: str) -> bool:
    """Whether `text` could be the id of a workspace."""
    return _WORKSPACE_ID.fullmatch(text) is not None


def named(prefix: str, entropy: bytes) -> str:
    """A new id of something else that is kept: `prefix`_01 and 22 characters, from `ID_ENTROPY_BYTES` bytes."""
    return f"{prefix}_01{drawn(entropy)}"


def api_key(role: Literal["workspace", "admin"], entropy: bytes) -> str:
    """A new key from `KEY_ENTROPY_BYTES` bytes, 480 bits. It has the shape of a key of the hosted API, which scanners
    for secrets know (for gitleaks `anthropic-api-key`), and says inside whose it is."""
    return f"{_KEY_PREFIXES[role]}overnight-{drawn(entropy)}AA"


def key_hint(key: str) -> str:
    """What may be shown of a key: its kind and its last characters."""
    kind = _KEY.fullmatch(key)
    return f"sk-ant-{kind[1]}-...{key[-6:]}" if kind else "..."
