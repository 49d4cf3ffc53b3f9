"""server.access: the keys and rules of the settings together with those of the store."""

import asyncio
from hashlib import sha256
from pathlib import Path

import pytest

from overnight.core.workspace import Key, Rules, Workspace
from overnight.errors import StoreError
from overnight.ids import DEFAULT_WORKSPACE, WorkspaceId
from overnight.server.access import ANYBODY, Caller, Doors, organization_id
from overnight.server.config import KeySettings, Settings
from overnight.store.committer import InlineCommitter, ThreadCommitter
from overnight.store.sqlite import connect
from overnight.store.sqliteaccess import SqliteAccess

NOW_MS = 1_780_000_000_000
BLUE = WorkspaceId("wrkspc_blue")


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


SETTINGS = Settings(
    api_key="operator",
    keys=[KeySettings(sha256=digest("blue"), workspace=BLUE)],
    requests_per_minute=60,
    weights={BLUE: 2.0},
)


@pytest.fixture
def store(tmp_path: Path) -> SqliteAccess:
    return SqliteAccess(InlineCommitter(connect(tmp_path / "control.sqlite3"), before_commit=lambda: None))


def key(name: str, *, of: WorkspaceId = BLUE, expires_at_ms: int | None = None) -> Key:
    return Key(
        id=f"apikey_{name}", sha256=digest(name), hint="...", name=name, workspace=of, expires_at_ms=expires_at_ms
    )


def refreshed(doors: Doors, store: SqliteAccess) -> Doors:
    asyncio.run(doors.refresh(store))
    return doors


def test_the_operators_key_is_an_admins_and_the_others_have_their_role() -> None:
    doors = Doors(SETTINGS)
    operator, blue = (doors.caller_of(text, now_ms=NOW_MS) for text in ("operator", "blue"))
    assert operator == Caller(DEFAULT_WORKSPACE, "settings-0", is_admin=True)
    assert blue == Caller(BLUE, "settings-1", is_admin=False)
    assert doors.caller_of("guess", now_ms=NOW_MS) is None
    assert doors.caller_with("settings-1", now_ms=NOW_MS) == blue
    assert doors.caller_with("apikey_none", now_ms=NOW_MS) is None


def test_without_any_key_everybody_is_an_admin(store: SqliteAccess) -> None:
    doors = refreshed(Doors(Settings()), store)
    assert doors.caller_of("anything", now_ms=NOW_MS) == doors.caller_with("", now_ms=NOW_MS) == ANYBODY
    asyncio.run(store.add_key(key("a", of=DEFAULT_WORKSPACE, expires_at_ms=NOW_MS)))
    assert refreshed(doors, store).caller_of("anything", now_ms=NOW_MS) is None
    assert doors.caller_of("a", now_ms=NOW_MS) is None, "it is over, and that opens nothing to others"
    assert doors.caller_of("a", now_ms=NOW_MS - 1) is not None


def test_a_rule_of_a_workspace_goes_before_one_of_the_settings(store: SqliteAccess) -> None:
    doors = refreshed(Doors(SETTINGS), store)
    assert doors.rules_of(BLUE) == doors.rules_of(WorkspaceId("wrkspc_nobody")) == Rules(requests_per_minute=60)
    asyncio.run(store.add_workspace(Workspace(id=BLUE, name="blue", rules=Rules(usd_per_day=1.0))))
    assert refreshed(doors, store).rules_of(BLUE) == Rules(requests_per_minute=60, usd_per_day=1.0)
    asyncio.run(store.set_rules(BLUE, Rules(requests_per_minute=5, weight=3.0)))
    assert refreshed(doors, store).rules_of(BLUE) == Rules(requests_per_minute=5, weight=3.0)
    assert doors.weights == {BLUE: 3.0}
    asyncio.run(store.set_rules(BLUE, Rules()))
    assert refreshed(doors, store).rules_of(BLUE) == Rules(requests_per_minute=60)
    assert doors.weights == {BLUE: 2.0}


def test_a_key_of_the_settings_closes_with_its_workspace(store: SqliteAccess) -> None:
    asyncio.run(store.add_workspace(Workspace(id=BLUE, name="blue")))
    doors = refreshed(Doors(SETTINGS), store)
    assert doors.caller_of("blue", now_ms=NOW_MS) is not None
    asyncio.run(store.archive_workspace(BLUE, now_ms=NOW_MS))
    assert refreshed(doors, store).caller_of("blue", now_ms=NOW_MS) is None


def test_rules_are_told_when_something_changed_and_only_then(store: SqliteAccess) -> None:
    told: list[int] = []
    doors = Doors(SETTINGS)
    doors.on_rules.append(lambda: told.append(1))
    for _ in range(2):
        refreshed(doors, store)
        assert len(told) == 1
    asyncio.run(store.set_rules(DEFAULT_WORKSPACE, Rules(weight=2.0)))
    refreshed(doors, store)
    assert len(told) == 2


def test_a_store_that_cannot_be_read_changes_nothing(store: SqliteAccess, tmp_path: Path) -> None:
    asyncio.run(store.add_key(key("a", of=DEFAULT_WORKSPACE)))
    doors = refreshed(Doors(Settings()), store)
    connection = connect(tmp_path / "other.sqlite3")
    connection.execute("DROP TABLE access")

    async def look() -> None:
        committer = ThreadCommitter(connection)
        with pytest.raises(StoreError):
            await doors.refresh(SqliteAccess(committer))
        await committer.close()

    asyncio.run(look())
    assert doors.caller_of("a", now_ms=NOW_MS) == Caller(DEFAULT_WORKSPACE, "apikey_a", is_admin=False)


def test_an_organization_is_a_uuid_that_follows_from_the_secret_and_does_not_tell_it() -> None:
    secret = bytes(range(32))
    assert organization_id(secret) == organization_id(secret) != organization_id(secret[::-1])
    assert secret[:4].hex() not in organization_id(secret)
