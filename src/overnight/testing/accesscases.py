"""What every `store.access.AccessStore` must do.

Subclass the suite, say how what is tested is opened, and let pytest collect it:

    class TestMyAccess(AccessSuite):
        def access(self, tmp_path): return my_async_context_manager(tmp_path)
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from overnight.core.workspace import DEFAULT, Access, Key, Rules, Workspace
from overnight.errors import UsageError
from overnight.ids import DEFAULT_WORKSPACE, WorkspaceId
from overnight.store.access import AccessStore

T0 = 1_780_000_000_000
OURS = WorkspaceId("wrkspc_ours")
RULES = Rules(usd_per_day=5.0, models=["claude-*"], weight=0.5, queue_requests_max=7)

Case = Callable[[Any, AccessStore], Awaitable[None]]


def case(body: Case) -> Callable[["AccessSuite", Path], None]:
    """Make a test method of an async function that wants an empty store."""

    def test(suite: "AccessSuite", tmp_path: Path) -> None:
        async def hold() -> None:
            async with suite.access(tmp_path) as access:
                await body(suite, access)

        asyncio.run(hold())

    test.__name__, test.__doc__ = getattr(body, "__name__", "case"), body.__doc__
    return test


def workspace(name: str = "ours", *, at_ms: int = T0) -> Workspace:
    """A workspace without rules."""
    return Workspace(id=WorkspaceId(f"wrkspc_{name}"), name=name, created_at_ms=at_ms)


def key(name: str, *, of: WorkspaceId = DEFAULT_WORKSPACE, at_ms: int = T0, expires_at_ms: int | None = None) -> Key:
    """A key as it is kept."""
    return Key(
        id=f"apikey_{name}",
        sha256=sha256(name.encode()).hexdigest(),
        hint=f"...{name}",
        name=name,
        workspace=of,
        created_at_ms=at_ms,
        expires_at_ms=expires_at_ms,
    )


async def seen(access: AccessStore) -> Access:
    """Everything."""
    found = await access.access()
    assert found is not None
    return found


class AccessSuite:
    """`access` opens an empty store."""

    def access(self, tmp_path: Path) -> AbstractAsyncContextManager[AccessStore]:
        """What is tested."""
        raise NotImplementedError

    @case
    async def test_the_default_workspace_is_there_from_the_beginning(self, access: AccessStore) -> None:
        found = await seen(access)
        assert (list(found.workspaces), list(found.keys)) == ([DEFAULT], [])

    @case
    async def test_the_default_workspace_is_first_and_the_newest_comes_next(self, access: AccessStore) -> None:
        for number, name in enumerate(("a", "b", "c")):
            await access.add_workspace(workspace(name, at_ms=T0 + number))
        await access.set_rules(DEFAULT_WORKSPACE, RULES)
        assert [item.name for item in (await seen(access)).workspaces] == ["default", "c", "b", "a"]

    @case
    async def test_rules_come_back_as_they_were_given(self, access: AccessStore) -> None:
        await access.add_workspace(workspace())
        for rules in (RULES, Rules(), Rules(requests_days=0)):
            await access.set_rules(OURS, rules)
            assert (await seen(access)).workspaces[1].rules == rules
        await access.set_rules(DEFAULT_WORKSPACE, RULES)
        assert (await seen(access)).workspaces[0].rules == RULES

    @case
    async def test_whoever_knows_the_revision_is_told_nothing_until_something_changes(
        self, access: AccessStore
    ) -> None:
        revision = (await seen(access)).revision
        changes: list[Callable[[], Awaitable[object]]] = [
            lambda: access.add_workspace(workspace()),
            lambda: access.set_rules(OURS, RULES),
            lambda: access.add_key(key("a")),
            lambda: access.replace_key("apikey_a", key("b"), until_ms=T0 + 9),
            lambda: access.revoke_key("apikey_a", now_ms=T0 + 1),
            lambda: access.archive_workspace(OURS, now_ms=T0 + 1),
        ]
        for change in changes:
            assert await access.access(known=revision) is None
            await change()
            found = await access.access(known=revision)
            assert found is not None
            assert found.revision > revision
            revision = found.revision

    @pytest.mark.parametrize(
        "taken",
        [
            pytest.param(workspace(), id="both"),
            pytest.param(Workspace(id=OURS, name="other"), id="id"),
            pytest.param(Workspace(id=WorkspaceId("wrkspc_other"), name="ours"), id="name"),
            pytest.param(Workspace(id=DEFAULT_WORKSPACE, name="other"), id="default-id"),
            pytest.param(Workspace(id=WorkspaceId("wrkspc_other"), name="default"), id="default-name"),
        ],
    )
    def test_a_name_and_an_id_are_taken_once(self, tmp_path: Path, taken: Workspace) -> None:
        async def hold() -> None:
            async with self.access(tmp_path) as access:
                await access.add_workspace(workspace())
                before = await seen(access)
                with pytest.raises(UsageError, match="already"):
                    await access.add_workspace(taken)
                assert await seen(access) == before

        asyncio.run(hold())

    @case
    async def test_what_is_not_there_cannot_be_changed(self, access: AccessStore) -> None:
        before = await seen(access)
        with pytest.raises(UsageError, match="no workspace"):
            await access.set_rules(OURS, RULES)
        with pytest.raises(UsageError, match="no workspace"):
            await access.archive_workspace(OURS, now_ms=T0)
        with pytest.raises(UsageError, match="no workspace"):
            await access.add_key(key("a", of=OURS))
        with pytest.raises(UsageError, match="no key"):
            await access.revoke_key("apikey_a", now_ms=T0)
        with pytest.raises(UsageError, match="no key"):
            await access.replace_key("apikey_a", key("b"), until_ms=T0)
        assert await seen(access) == before

    @case
    async def test_archiving_twice_is_once_and_ends_new_keys(self, access: AccessStore) -> None:
        await access.add_workspace(workspace())
        await access.archive_workspace(OURS, now_ms=T0 + 1)
        await access.archive_workspace(OURS, now_ms=T0 + 2)
        assert (await seen(access)).workspaces[1].archived_at_ms == T0 + 1
        with pytest.raises(UsageError, match="archived"):
            await access.add_key(key("a", of=OURS))
        assert list((await seen(access)).keys) == []

    @case
    async def test_the_default_workspace_cannot_be_archived(self, access: AccessStore) -> None:
        with pytest.raises(UsageError, match="default"):
            await access.archive_workspace(DEFAULT_WORKSPACE, now_ms=T0)
        assert (await seen(access)).workspaces[0].archived_at_ms is None

    @case
    async def test_keys_come_back_newest_first(self, access: AccessStore) -> None:
        keys = [key("a"), key("b", at_ms=T0 + 1, expires_at_ms=T0 + 9)]
        for item in keys:
            await access.add_key(item)
        assert list((await seen(access)).keys) == keys[::-1]

    @case
    async def test_revoking_twice_is_once(self, access: AccessStore) -> None:
        await access.add_key(key("a"))
        assert (await access.revoke_key("apikey_a", now_ms=T0 + 1)).revoked_at_ms == T0 + 1
        assert (await access.revoke_key("apikey_a", now_ms=T0 + 2)).revoked_at_ms == T0 + 1
        assert [item.revoked_at_ms for item in (await seen(access)).keys] == [T0 + 1]

    @case
    async def test_a_key_that_is_replaced_opens_until_then_and_never_longer_than_it_did(
        self, access: AccessStore
    ) -> None:
        await access.add_key(key("endless"))
        await access.add_key(key("short", expires_at_ms=T0 + 5))
        await access.replace_key("apikey_endless", key("b", at_ms=T0 + 1), until_ms=T0 + 9)
        await access.replace_key("apikey_short", key("c", at_ms=T0 + 1), until_ms=T0 + 9)
        ends = {item.name: item.expires_at_ms for item in (await seen(access)).keys}
        assert ends == {"endless": T0 + 9, "short": T0 + 5, "b": None, "c": None}

    @case
    async def test_a_key_that_opens_nothing_is_not_replaced(self, access: AccessStore) -> None:
        await access.add_key(key("revoked"))
        await access.revoke_key("apikey_revoked", now_ms=T0)
        await access.add_key(key("over", expires_at_ms=T0 + 1))
        before = await seen(access)
        for name in ("revoked", "over"):
            with pytest.raises(UsageError, match="any more"):
                await access.replace_key(f"apikey_{name}", key("b", at_ms=T0 + 1), until_ms=T0 + 9)
        assert await seen(access) == before

    @case
    async def test_the_first_secret_of_a_name_is_kept(self, access: AccessStore) -> None:
        assert await access.secret("a", b"first") == b"first"
        assert await access.secret("a", b"second") == b"first"
        assert await access.secret("b", b"third") == b"third"
