"""What every `store.objects.Objects` and `store.control.Control` must do.

Subclass a suite, say how what is tested is opened, and let pytest collect it:

    class TestMyControl(ControlSuite):
        def control(self, tmp_path): return my_async_context_manager(tmp_path)
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from overnight.errors import ObjectMissing, StoreError
from overnight.store.control import Control
from overnight.store.objects import Objects
from overnight.testing.browsingcases import BrowsingCases
from overnight.testing.controlcases import ListCases
from overnight.testing.files import Interrupted
from overnight.testing.handoffcases import HandoffCases
from overnight.testing.leasecases import LeaseCases
from overnight.testing.lookingcases import LookingCases
from overnight.testing.spendingcases import SpendingCases

Case = Callable[[Any, Objects], Awaitable[None]]


def case(body: Case) -> Callable[["ObjectsSuite", Path], None]:
    """Make a test method of an async function that wants objects."""

    def test(suite: "ObjectsSuite", tmp_path: Path) -> None:
        async def hold() -> None:
            async with suite.objects(tmp_path) as objects:
                await body(suite, objects)

        asyncio.run(hold())

    test.__name__, test.__doc__ = getattr(body, "__name__", "case"), body.__doc__
    return test


class ObjectsSuite:
    """`objects` opens an empty space of objects."""

    def objects(self, tmp_path: Path) -> AbstractAsyncContextManager[Objects]:
        """What is tested."""
        raise NotImplementedError

    @case
    async def test_an_object_is_read_whole_and_in_ranges(self, objects: Objects) -> None:
        await objects.put_new("requests/msgbatch_01a.gz", [b"01", b"", b"2345"])
        assert await objects.get("requests/msgbatch_01a.gz") == b"012345"
        assert await objects.get("requests/msgbatch_01a.gz", offset=1, length=3) == b"123"
        assert await objects.get("requests/msgbatch_01a.gz", offset=4, length=100) == b"45"
        assert await objects.get("requests/msgbatch_01a.gz", offset=100) == b""

    @case
    async def test_an_object_never_changes(self, objects: Objects) -> None:
        await objects.put_new("results/msgbatch_01a/0-1.gz", [b"first"])
        await objects.put_new("results/msgbatch_01a/0-1.gz", [b"second"])
        assert await objects.get("results/msgbatch_01a/0-1.gz") == b"first"

    @case
    async def test_what_fails_while_it_is_written_is_no_object(self, objects: Objects) -> None:
        def pieces() -> Iterator[bytes]:
            yield b"half"
            raise Interrupted

        with pytest.raises(Interrupted):
            await objects.put_new("requests/msgbatch_01a.gz", pieces())
        with pytest.raises(ObjectMissing):
            await objects.get("requests/msgbatch_01a.gz")
        assert await objects.keys() == []

    @case
    async def test_a_missing_object_is_an_error_of_its_own(self, objects: Objects) -> None:
        with pytest.raises(ObjectMissing):
            await objects.get("requests/msgbatch_01a.gz")

    @case
    async def test_keys_are_all_of_them_sorted(self, objects: Objects) -> None:
        keys = ["requests/msgbatch_01a.gz", "requests/msgbatch_01b.gz", "results/msgbatch_01a/10-2.gz"]
        for key in reversed(keys):
            await objects.put_new(key, [b"x"])
        assert await objects.keys() == keys

    @case
    async def test_removing_twice_is_harmless(self, objects: Objects) -> None:
        await objects.put_new("requests/msgbatch_01a.gz", [b"x"])
        await objects.remove("requests/msgbatch_01a.gz")
        await objects.remove("requests/msgbatch_01a.gz")
        assert await objects.keys() == []
        await objects.put_new("requests/msgbatch_01a.gz", [b"again"])
        assert await objects.get("requests/msgbatch_01a.gz") == b"again"

    @case
    async def test_a_key_cannot_leave_the_space(self, objects: Objects) -> None:
        for key in ("../secret.gz", "requests/../../secret.gz", "/etc/secret.gz"):
            with pytest.raises(StoreError):
                await objects.put_new(key, [b"x"])
            with pytest.raises(StoreError):
                await objects.get(key)


class ControlSuite(ListCases, BrowsingCases, LeaseCases, HandoffCases, LookingCases, SpendingCases):
    """`control` opens an empty control store."""

    def control(self, tmp_path: Path) -> AbstractAsyncContextManager[Control]:
        raise NotImplementedError
