"""`Objects` in a dictionary: for tests of what uses objects, and proof that the Protocol says enough."""

from collections.abc import Iterable

from overnight.errors import ObjectMissing, StoreError


class MemoryObjects:
    """Lives as long as it is referred to; not thread-safe, and needs not be: calls do not await."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}

    async def put_new(self, key: str, pieces: Iterable[bytes]) -> None:
        _check(key)
        if key not in self._objects:
            self._objects[key] = b"".join(pieces)

    async def get(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        _check(key)
        if key not in self._objects:
            raise ObjectMissing(f"{key} does not exist")
        return self._objects[key][offset : None if length is None else offset + length]

    async def remove(self, key: str) -> None:
        _check(key)
        self._objects.pop(key, None)

    async def keys(self) -> list[str]:
        return sorted(self._objects)


def _check(key: str) -> None:
    if ".." in key or key.startswith("/"):
        raise StoreError(f"{key!r} is not an object key")
