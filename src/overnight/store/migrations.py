"""The schema of the control database, as the steps that lead to it.

A step is never edited once released: a new version appends one. `PRAGMA user_version` holds how many steps were
taken; a database with more steps than we know was written by a newer `overnight` and is left alone.
"""

from typing import Final

APPLICATION_ID: Final = 0x4F564E54  # "OVNT": tells our database from any other SQLite file.

STEPS: Final = (
    """
    CREATE TABLE batches (
        age INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        workspace TEXT NOT NULL,
        api_version TEXT NOT NULL,
        betas TEXT NOT NULL,
        status TEXT NOT NULL,
        requests INTEGER NOT NULL,
        segments_open INTEGER NOT NULL,
        succeeded INTEGER NOT NULL DEFAULT 0,
        errored INTEGER NOT NULL DEFAULT 0,
        canceled INTEGER NOT NULL DEFAULT 0,
        expired INTEGER NOT NULL DEFAULT 0,
        created_at_ms INTEGER NOT NULL,
        expires_at_ms INTEGER NOT NULL,
        cancel_initiated_at_ms INTEGER,
        ended_at_ms INTEGER,
        archived_at_ms INTEGER,
        requests_key TEXT,
        idempotency_key TEXT,
        body_sha256 BLOB
    ) STRICT;
    CREATE INDEX batches_of_workspace ON batches (workspace, age);
    CREATE INDEX batches_unfinished ON batches (workspace, age) WHERE ended_at_ms IS NULL;
    CREATE INDEX batches_canceling ON batches (age) WHERE status = 'canceling';
    CREATE INDEX batches_unarchived ON batches (created_at_ms) WHERE archived_at_ms IS NULL;
    CREATE UNIQUE INDEX batches_idempotent ON batches (workspace, idempotency_key)
        WHERE idempotency_key IS NOT NULL;

    CREATE TABLE segments (
        batch_id TEXT NOT NULL,
        position INTEGER NOT NULL,
        requests INTEGER NOT NULL,
        raw_bytes INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        length INTEGER NOT NULL,
        epoch INTEGER NOT NULL DEFAULT 0,
        worker TEXT,
        lease_expires_at_ms INTEGER NOT NULL DEFAULT 0,
        is_sealed INTEGER NOT NULL DEFAULT 0,
        result_key TEXT,
        result_length INTEGER,
        result_raw_bytes INTEGER,
        result_crc INTEGER,
        requests_inline BLOB,
        result_inline BLOB,
        PRIMARY KEY (batch_id, position)
    ) STRICT;
    CREATE INDEX segments_open ON segments (batch_id, position, lease_expires_at_ms) WHERE is_sealed = 0;
    CREATE INDEX segments_held ON segments (worker) WHERE worker IS NOT NULL;

    CREATE TABLE garbage (key TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE handoffs (
        id TEXT PRIMARY KEY,
        engine TEXT NOT NULL,
        requests INTEGER NOT NULL,
        created_at_ms INTEGER NOT NULL,
        upstream_id TEXT
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE handoff_parts (
        handoff_id TEXT NOT NULL,
        batch_id TEXT NOT NULL,
        position INTEGER NOT NULL,
        members BLOB NOT NULL,
        PRIMARY KEY (handoff_id, batch_id, position)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    ALTER TABLE segments ADD COLUMN model TEXT NOT NULL DEFAULT '';
    """,
    """
    CREATE TABLE spending (
        engine TEXT NOT NULL,
        day TEXT NOT NULL,
        usd_micro INTEGER NOT NULL,
        PRIMARY KEY (engine, day)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE access (revision INTEGER NOT NULL) STRICT;
    INSERT INTO access VALUES (1);
    CREATE TABLE workspaces (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        rules TEXT NOT NULL,
        created_at_ms INTEGER NOT NULL,
        archived_at_ms INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE keys (
        id TEXT PRIMARY KEY,
        sha256 TEXT NOT NULL UNIQUE,
        hint TEXT NOT NULL,
        name TEXT NOT NULL,
        workspace TEXT NOT NULL,
        role TEXT NOT NULL,
        created_at_ms INTEGER NOT NULL,
        expires_at_ms INTEGER,
        revoked_at_ms INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;

    ALTER TABLE batches ADD COLUMN api_key TEXT NOT NULL DEFAULT '';
    CREATE INDEX batches_by_status ON batches (workspace, status, age);
    CREATE INDEX batches_by_expiry ON batches (expires_at_ms) WHERE ended_at_ms IS NULL;

    CREATE TABLE usage (
        at_ms INTEGER NOT NULL,
        workspace TEXT NOT NULL,
        api_key TEXT NOT NULL,
        model TEXT NOT NULL,
        engine TEXT NOT NULL,
        service_tier TEXT NOT NULL,
        requests INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL,
        cache_read_tokens INTEGER NOT NULL,
        cache_write_5m_tokens INTEGER NOT NULL,
        cache_write_1h_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        web_searches INTEGER NOT NULL,
        usd_nano INTEGER NOT NULL,
        realtime_usd_nano INTEGER NOT NULL,
        unpriced INTEGER NOT NULL,
        PRIMARY KEY (at_ms, workspace, api_key, model, engine, service_tier)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE batch_usage (
        batch_id TEXT NOT NULL,
        model TEXT NOT NULL,
        engine TEXT NOT NULL,
        service_tier TEXT NOT NULL,
        requests INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL,
        cache_read_tokens INTEGER NOT NULL,
        cache_write_5m_tokens INTEGER NOT NULL,
        cache_write_1h_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        web_searches INTEGER NOT NULL,
        usd_nano INTEGER NOT NULL,
        realtime_usd_nano INTEGER NOT NULL,
        unpriced INTEGER NOT NULL,
        PRIMARY KEY (batch_id, model, engine, service_tier)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE causes (
        batch_id TEXT NOT NULL,
        type TEXT NOT NULL,
        message TEXT NOT NULL,
        requests INTEGER NOT NULL,
        example TEXT NOT NULL,
        PRIMARY KEY (batch_id, type, message)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE hooks (
        id TEXT PRIMARY KEY,
        workspace TEXT NOT NULL,
        url TEXT NOT NULL,
        events TEXT NOT NULL,
        secret BLOB NOT NULL,
        created_at_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE deliveries (
        id TEXT PRIMARY KEY,
        hook_id TEXT NOT NULL,
        workspace TEXT NOT NULL,
        event TEXT NOT NULL,
        body BLOB NOT NULL,
        status TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        created_at_ms INTEGER NOT NULL,
        due_at_ms INTEGER NOT NULL,
        ended_at_ms INTEGER,
        trouble TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX deliveries_due ON deliveries (due_at_ms) WHERE status = 'pending';
    CREATE INDEX deliveries_by_status ON deliveries (status, ended_at_ms);
    CREATE INDEX deliveries_of_workspace ON deliveries (workspace, created_at_ms);
    CREATE TABLE told (what TEXT PRIMARY KEY, at_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    """,
)
