"""A file as a content block: a PDF, an image, or a text.

https://platform.claude.com/docs/en/build-with-claude/pdf-support, …/vision
"""

import base64
from pathlib import Path
from typing import Any

from overnight import limits

_IMAGES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}
_TEXTS = (".txt", ".md", ".csv", ".html", ".xml", ".json", ".eml", ".log")


class NotReadable(ValueError):
    """One document cannot be sent: its row fails, and no other."""


def block(folder: Path, name: str) -> dict[str, Any]:
    """The block that carries the file `name` of a folder.

    NotReadable if it is too large, gone, of an unknown kind, or outside of the folder: names come from rows, and a
    stranger who writes a row must not have other files sent.

    The size that counts is the encoded one: base64 makes four bytes of three.
    """
    path = folder / name
    kind = path.suffix.lower()
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise NotReadable(f"{path.name} lies outside of the folder of documents ([prompt] folder)")
        encoded = path.stat().st_size * 4 // 3
        data = path.read_bytes() if encoded <= limits.JOB_DOCUMENT_BYTES_MAX else b""
    except OSError as error:
        raise NotReadable(f"cannot read {path.name}: {error.strerror}") from error
    except NotReadable:
        raise
    except ValueError as error:  # A NUL in the path.
        raise NotReadable(f"cannot read {path.name!r}: {error}") from error
    if encoded > limits.JOB_DOCUMENT_BYTES_MAX:
        raise NotReadable(
            f"{path.name} has {encoded} bytes in base64, and {limits.JOB_DOCUMENT_BYTES_MAX} can be sent"
        )
    if kind == ".pdf":
        return {"type": "document", "source": _base64("application/pdf", data)}
    if kind in _IMAGES:
        return {"type": "image", "source": _base64(_IMAGES[kind], data)}
    if kind in _TEXTS:
        return {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": _text(path, data)}}
    known = ", ".join([".pdf", *_IMAGES, *_TEXTS])
    raise NotReadable(f"{path.name} is no document that can be sent; these can: {known}")


def _base64(media_type: str, data: bytes) -> dict[str, str]:
    return {"type": "base64", "media_type": media_type, "data": base64.b64encode(data).decode("ascii")}


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotReadable(f"{path.name} is not UTF-8: {error}") from error
