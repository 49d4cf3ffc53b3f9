"""The hosted Message Batches API as a server on 127.0.0.1, for tests of its clients: strict, and led by the test.

with HostedApi(lambda custom_id, params: text("ok")) as hosted:
    client = anthropic.Anthropic(base_url=hosted.url, api_key=hosted.key, max_retries=0)
    hosted.next_create("lost")

It does what was recorded of the hosted API or is documented (docs/reference/http-api.md), where our own server is
kinder: no `Idempotency-Key`, counters that stand still until the end, results in another order than they were sent,
and `params` that are looked at only when they run. A batch ends when the test says so, never by itself.
"""

import time
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Self

from overnight.testing.hostedfaults import Fault, Operation
from overnight.testing.hostedrows import Outcome, Params, Script, Usage, canceled, expired, failed, message, text
from overnight.testing.hostedservice import KEY, Create, HostedService, operation
from overnight.testing.hostedwire import WireServer
from overnight.wire.batch import MessageBatch

__all__ = ["Create", "HostedApi", "Outcome", "canceled", "expired", "failed", "message", "text"]

_PATIENCE_S = 60.0


class HostedApi:
    """Use it as a context manager. Every method may be called from any thread, at any time.

    Leaving the block raises what `script` raised, if it did: its caller saw a broken connection.
    """

    key = KEY

    def __init__(
        self,
        script: Script = lambda custom_id, params: text("ok"),
        *,
        seed: int = 0,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """`script` is asked once for each request that is well formed, by the time the batch ends."""
        self._service = HostedService(script, seed=seed, now_ms=now_ms)
        self._told, self._changed = self._service.told, self._service.changed

    def __enter__(self) -> Self:
        self._server = WireServer(self._service)
        self.url = self._service.url = self._server.url
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        if self._server.failures:
            raise self._server.failures[0]

    # --- When batches end, and what looks show ------------------------------------------------------------------

    def end_after_looks(self, looks: int) -> None:
        """A batch shows itself running in this many retrieves and lists, then it has ended. 1 unless told."""
        with self._changed:
            self._told.end_after = looks

    def hold(self) -> None:
        """No batch ends, but by a cancel (after one look) or 24 hours after its creation."""
        with self._changed:
            self._told.is_held = True

    def release(self) -> None:
        """Take `hold` back."""
        with self._changed:
            self._told.is_held = False

    def progress(self, done: int) -> None:
        """The first `done` requests of every batch are done: a cancel or 24 hours leave them as they are."""
        with self._changed:
            self._told.done = done

    def live_counts(self, is_live: bool) -> None:
        """Whether counters move while a batch runs, as those of our own server can; the hosted API's do not."""
        with self._changed:
            self._told.is_live = is_live

    def say_status(self, word: str) -> None:
        """The next look at a batch that runs shows it with this `processing_status`."""
        with self._changed:
            self._told.word = word

    def list_lag(self, lists: int) -> None:
        """Batches made from now on are missing from the next `lists` lists. 0 unless told."""
        with self._changed:
            self._told.list_lag = lists

    # --- What results say ---------------------------------------------------------------------------------------

    def usage(self, input_tokens: int, output_tokens: int, *, cache_read: int = 0, cache_write: int = 0) -> None:
        """What every answer from now on says it took; the prompt cache for an hour."""
        with self._changed:
            self._told.usage = Usage(input_tokens, output_tokens, cache_read, cache_write)

    def lose_rows(self, custom_ids: Collection[str]) -> None:
        """The next batch to end with such a request has no row of it in its results. Its counters hide that."""
        with self._changed:
            self._told.lost.update(custom_ids)

    def duplicate_rows(self, custom_ids: Collection[str]) -> None:
        """The next batch to end with such a request has its row twice."""
        with self._changed:
            self._told.doubled.update(custom_ids)

    def extra_rows(self, custom_ids: Collection[str]) -> None:
        """The next batch to end has rows of these requests, which nobody sent."""
        with self._changed:
            self._told.extra.extend(custom_ids)

    # --- What goes wrong ----------------------------------------------------------------------------------------

    def next_create(self, what: str, retry_after_s: int | None = None, *, times: int = 1) -> None:
        """`lost` and `500`: it is stored, then there is no answer, or that one. `dropped`: hung up on half a body.

        `busy` (429), `overloaded` (529), `413`, `billing` (400), `500-nothing`: refused and not stored.
        """
        self._next("create", Fault(what, retry_after_s), times)

    def next_retrieve(self, what: str, retry_after_s: int | None = None, *, times: int = 1) -> None:
        """`404`, `busy` (429), `overloaded` (529), `500`, `dropped` (no answer)."""
        self._next("retrieve", Fault(what, retry_after_s), times)

    def next_list(self, what: str, retry_after_s: int | None = None, *, times: int = 1) -> None:
        """`busy` (429), `overloaded` (529), `500`, `dropped` (no answer)."""
        self._next("list", Fault(what, retry_after_s), times)

    def next_results(
        self, what: str, after_bytes: int = 0, *, retry_after_s: int | None = None, times: int = 1
    ) -> None:
        """`cut`: the connection breaks after so many bytes of lines.

        `404`, `busy` (429), `overloaded` (529), `500`, `dropped` (no answer).
        """
        self._next("results", Fault(what, retry_after_s, after_bytes), times)

    def next_cancel(self, what: str, retry_after_s: int | None = None, *, times: int = 1) -> None:
        """`404`, `busy` (429), `overloaded` (529), `500`, `dropped` (no answer): nothing is canceled."""
        self._next("cancel", Fault(what, retry_after_s), times)

    def next_realtime(self, what: str, retry_after_s: int | None = None, *, times: int = 1) -> None:
        """`billing` (400), `busy` (429), `overloaded` (529), `500`, `dropped`: the script is not asked."""
        self._next("realtime", Fault(what, retry_after_s), times)

    def _next(self, asked: Operation, fault: Fault, times: int) -> None:
        with self._changed:
            self._told.faults.add(asked, fault, times=times)

    # --- What happened ------------------------------------------------------------------------------------------

    @property
    def calls(self) -> list[tuple[str, str]]:
        """Method and path of every request that came, whatever it got."""
        with self._changed:
            return list(self._service.calls)

    @property
    def creates(self) -> list[Create]:
        """Every create that made a batch."""
        with self._changed:
            return list(self._service.creates)

    @property
    def realtime(self) -> list[Params]:
        """What every POST /v1/messages that the script was asked about said."""
        with self._changed:
            return list(self._service.realtime)

    @property
    def batches(self) -> list[MessageBatch]:
        """Every batch that is stored, oldest first. This is no look."""
        with self._changed:
            return [self._service.shown(batch) for batch in self._service.batches.values()]

    @property
    def looks(self) -> int:
        """How many retrieves and lists came."""
        return sum(operation(method, path)[0] in ("retrieve", "list") for method, path in self.calls)

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Return once it is so; looks again after each request. TimeoutError after a minute."""
        with self._changed:
            if not self._changed.wait_for(is_so, _PATIENCE_S):
                raise TimeoutError(f"it did not come to that; what came: {self.calls}")
