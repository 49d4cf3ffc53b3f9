"""Runs without a store, for tests of what happens inside the runner."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from overnight import limits
from overnight.core.batch import Batch
from overnight.core.lease import Lease, SegmentRef
from overnight.ids import DEFAULT_WORKSPACE, BatchId, WorkspaceId
from overnight.runner.segmentrun import SegmentRun, Unsaved, Work
from overnight.store.control import LeasedSegment, NewSegment
from overnight.wire.create import Request

T0 = 1_780_000_000_000


def run_of(
    count: int,
    *,
    done: list[SegmentRun] | None = None,
    unsaved: Unsaved | None = None,
    workspace: str = DEFAULT_WORKSPACE,
) -> SegmentRun:
    """A leased segment of so many requests; when it is done it is appended to `done`."""
    batch = Batch(
        id=BatchId("msgbatch_01a"),
        workspace=WorkspaceId(workspace),
        api_version="2023-06-01",
        betas="",
        requests=count,
        segments_open=1,
        created_at_ms=T0,
        expires_at_ms=T0 + limits.BATCH_LIFETIME_MS,
    )
    return SegmentRun(
        LeasedSegment(
            lease=Lease(segment=SegmentRef(batch.id, 0), worker="w", epoch=1, expires_at_ms=T0 + limits.LEASE_TTL_MS),
            batch=batch,
            age=1,
            source=NewSegment(requests=count, raw_bytes=1, offset=0, length=1),
            requests_key=None,
        ),
        counter=Counter(),
        unsaved=unsaved or Unsaved(),
        on_done=(done if done is not None else []).append,
    )


def begun(run: SegmentRun, texts: Sequence[str]) -> list[Work]:
    """The run's requests `r0`, `r1`, … with these texts, ready for a pool."""
    works = run.start(
        Request(
            f"r{index}",
            msgspec.Raw(msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": text}]})),
        )
        for index, text in enumerate(texts)
    )
    for work in works:
        work.model = "m"
    run.is_started = True
    return works


def rows(run: SegmentRun) -> dict[str, dict[str, Any]]:
    """The lines that are in no log yet, by `custom_id`."""
    return {line["custom_id"]: line["result"] for line in map(json.loads, run.lines)}


def kinds(run: SegmentRun) -> dict[str, str]:
    """The kind of each of them."""
    return {custom_id: found["type"] for custom_id, found in rows(run).items()}
