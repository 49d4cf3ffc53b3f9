"""Stylesheet, script and icon: read once at the start, under names that change with their content."""

from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight.errors import NotFound

_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


class _Asset(NamedTuple):
    content: bytes
    media_type: str


def _url_name(path: Path) -> str:
    return f"{path.stem}.{sha256(path.read_bytes()).hexdigest()[:12]}{path.suffix}"


_FILES = sorted(path for path in Path(__file__).with_name("static").iterdir() if path.suffix in _TYPES)
URL_NAMES: Final = {path.name: _url_name(path) for path in _FILES}
_ASSETS = {_url_name(path): _Asset(path.read_bytes(), _TYPES[path.suffix]) for path in _FILES}


async def asset(http_request: HttpRequest) -> Response:
    """GET /console/static/{name}, for everybody; NotFound for a name that we did not give."""
    found = _ASSETS.get(http_request.path_params["name"])
    if found is None:
        raise NotFound("There is no such file.")
    headers = {
        "cache-control": "public, max-age=31536000, immutable",
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'",
        "cross-origin-resource-policy": "same-origin",
    }
    return Response(found.content, media_type=found.media_type, headers=headers)
