"""Every bound of the system: a number, a unit, and where it comes from.

What the API promises is a constant here; what differs between installations is configuration (`server.config`).
Sizes are bytes unless the name says otherwise. MB on the wire is taken as MiB, the larger reading.
"""

from typing import Final

MIB: Final = 1024 * 1024  # A unit, not a bound.
DAY_MS: Final = 24 * 3600 * 1000  # A unit, not a bound.

# --- The API (https://platform.claude.com/docs/en/build-with-claude/batch-processing) -----------------------------

BATCH_REQUESTS_MAX: Final = 100_000
BATCH_BODY_BYTES_MAX: Final = 256 * MIB
MESSAGE_BODY_BYTES_MAX: Final = 32 * MIB  # Messages and count_tokens; docs, api/errors.
CUSTOM_ID_LENGTH_MAX: Final = 64
BATCH_LIFETIME_MS: Final = 24 * 3600 * 1000  # created_at to expires_at, exactly.
RESULTS_LIFETIME_MS: Final = 29 * 24 * 3600 * 1000  # Counted from created_at, not from ended_at.
LIST_LIMIT_DEFAULT: Final = 20
LIST_LIMIT_MAX: Final = 1000
POLL_AFTER_S: Final = 10  # `Retry-After` of an unfinished batch, as the hosted API sends it.
IDEMPOTENCY_KEY_LENGTH_MAX: Final = 255  # Characters; the bound of draft-ietf-httpapi-idempotency-key users.
QUEUE_RETRY_S: Final = 60  # `Retry-After` when a workspace has its queue full: about as fast as a queue moves.

# --- Workspaces and keys --------------------------------------------------------------------------------------------

NAME_CHARACTERS_MAX: Final = 100  # Of a workspace or a key: a column of a table.
KEY_LIFETIME_MS_MAX: Final = 3_650 * DAY_MS  # Of a key that ends: ten years; beyond it a date is a mistake.

# --- Receiving ----------------------------------------------------------------------------------------------------

HEAD_BYTES_MAX: Final = 64 * 1024  # Request line and headers; other servers take 8 to 32 KB. Beyond it 431.
HEAD_S_MAX: Final = 30  # From connecting, or from the first byte of a next request, to the end of its head.
UPLOADS_BYTES_MAX: Final = 2 * BATCH_BODY_BYTES_MAX  # All bodies in memory at once; later uploads wait unread.
UPLOAD_STALL_S: Final = 30  # A body that brings no byte for this long is given up: 408.
UPLOAD_S_MAX: Final = 600  # A whole body; the SDKs' own default timeout is 10 minutes.
REFUSED_BODY_S_MAX: Final = 10  # How long a refused body is read and dropped, so that its client gets the 413.
REFUSED_BODY_BYTES_MAX: Final = 2 * BATCH_BODY_BYTES_MAX  # How much of it.
CURSOR_LENGTH_MAX: Final = 8 * 1024  # Characters; the largest batch in its worst cut needs 5,200.
DOWNLOAD_STALL_S: Final = 120  # A reader that takes no byte for this long is disconnected.
IN_FLIGHT_INTERACTIVE_MAX: Final = 1_000  # POST /v1/messages at once; beyond it 529. Bounds memory, not speed.

# --- Segments (docs/adr/0001: 1 MB compresses as well as 4 MB, and is a good unit of recovery) -------------------

SEGMENT_REQUESTS_MAX: Final = 1_000
SEGMENT_BYTES_MAX: Final = 1 * MIB  # Raw; one larger request is a segment of its own.
INLINE_BYTES_MAX: Final = 16 * 1024  # Compressed. Smaller objects live in their control row: one fsync, not three.
SORT_BLOCK_BYTES: Final = 256  # The first block of a sort key; about 64 tokens, four cache blocks of an engine.

# --- Leases ---------------------------------------------------------------------------------------------------------

LEASE_TTL_MS: Final = 30_000  # How long a segment stays idle after its worker died.
LEASE_RENEW_MS: Final = 10_000  # Two renewals may fail before the lease runs out.
LEASE_TRUST_MARGIN_MS: Final = 5_000  # A holder stops this early: one slow fsync and one late wake-up.
LEASED_BYTES_MAX: Final = 64 * MIB  # Raw requests a worker holds at once; beyond it no segment is leased.
LEASED_SEGMENTS_MAX: Final = 256  # Per worker: bounds its memory when batches hold one request each.

# --- Running ------------------------------------------------------------------------------------------------------

CHECKPOINT_EVERY_MS: Final = 200  # Group commit of results: what a kill -9 may repeat, beside what was in flight.
CHECKPOINT_BUFFER_BYTES_MAX: Final = 8 * MIB  # Results not yet on disk; beyond it the engine waits for the disk.
ATTEMPTS_MAX: Final = 6  # Tries that broke (5xx, lost, timed out): 1+2+4+8+16 s of backoff, then an errored row.
DEATHS_MAX: Final = 2  # Times an engine may be lost with a request inside before the request has to run alone.
TWINS_BYTES_MAX: Final = 8 * MIB  # Rows kept for equal requests in the next segment, which follows within seconds.
FALL_OVER_MS: Final = 60_000  # An engine that restarts is back by then; one that costs more waits so long to help.
BREAKER_FAILURES: Final = 20  # Broken attempts in a row until an engine is left alone: 3 bad requests cause 18.
RETRY_DELAY_MS: Final = 1_000  # Doubles with each attempt.
RETRY_DELAY_MS_MAX: Final = 60_000  # Reached after 6 doublings; a busy engine is asked once a minute at the least.
RETRY_AFTER_MS_MAX: Final = 3_600_000  # A `Retry-After` beyond an hour is taken as an hour.
ALLOWANCE_WAIT_MS_MAX: Final = 60_000  # Limits told by headers hold a request back no longer than this.
RETRY_BUDGET_SHARE: Final = 0.2  # Retries per first attempt over time (SRE book, "Handling Overload": 10 %).
RETRY_BUDGET_FLOOR: Final = 10.0  # Retries always allowed in a burst, so small batches can retry.
ENGINE_TIMEOUT_S: Final = 600.0  # One attempt; the SDKs' own default.
ENGINE_CONNECT_S: Final = 10.0  # Three lost SYNs of Linux take 7 s; beyond that nobody is there.
ENGINE_REPLY_BYTES_MAX: Final = 64 * MIB  # One answer; 300,000 output tokens are about 2 MB.
CANCEL_GRACE_MS: Final = 25_000  # In flight at a cancel may finish this long; 1 to 25 s were seen on the hosted API.
DRAIN_S_MAX: Final = 30.0  # SIGTERM to exit. In flight may finish for most of it, then it is given back.
UPKEEP_EVERY_MS: Final = 30_000  # Expiry of batches nobody works on, archive, removal of objects.
UPKEEP_BATCHES_MAX: Final = 100  # Per pass, so that upkeep never holds the database for long.
UPKEEP_HOURLY_MS: Final = 3_600_000  # Sums of usage, and new pages for the database if something was removed.
REPACK_BYTES_MAX: Final = 256 * MIB  # Database; repacking holds up commits for 1.5 s and takes as much memory.

# --- Off-peak -----------------------------------------------------------------------------------------------------

OFF_PEAK_SAFETY: Final = 1.25  # Time kept free for work, per time it should take: estimates of answers are rough.
SIGNAL_BELIEVED_MS: Final = 6 * 3600 * 1000  # A high signal is taken to stay high so long: a morning or evening peak.
SIGNAL_MISSES_MAX: Final = 3  # Readings missed in a row until the last one counts no more.
SIGNAL_BODY_BYTES_MAX: Final = 64 * 1024  # Of one answer; a number and what stands around it.
SIGNAL_TIMEOUT_S: Final = 10.0  # One reading, from connecting to its last byte.

# --- Budgets --------------------------------------------------------------------------------------------------------

BUDGET_USD_MAX: Final = 1_000_000.0  # A day. Beyond it a setting is a mistake of units.
PRICE_USD_MAX: Final = 1_000_000.0  # For a million tokens, likewise; the dearest model cost 600 in 2026.
HOUR_USD_MAX: Final = 100_000.0  # Of one machine; the largest that could be rented in 2026 cost about 100.
PRICES_MAX: Final = 1_000  # Models whose price one purse keeps; a hostile batch must not fill memory.
SPENDING_SAVE_MS: Final = 1_000  # What a crash may forget of what was paid.

# --- Usage (buckets of a page: https://platform.claude.com/docs/en/manage-claude/usage-cost-api) --------------------

REPORT_MINUTES_DEFAULT: Final = 60
REPORT_MINUTES_MAX: Final = 1_440
REPORT_HOURS_DEFAULT: Final = 24
REPORT_HOURS_MAX: Final = 168
REPORT_DAYS_DEFAULT: Final = 7
REPORT_DAYS_MAX: Final = 31
USAGE_DAYS_MAX: Final = 400  # Of one table of usage: a year, and what it is compared with.
USAGE_BATCHES_MAX: Final = 1_000  # That one table looks at, each with a read of its own.

# --- Hooks (https://www.standardwebhooks.com) ---------------------------------------------------------------------

HOOKS_MAX: Final = 20  # Of one workspace: each of its events is written once for each of them.
HOOK_URL_CHARACTERS_MAX: Final = 2_048  # What common servers and proxies take.
HOOK_SECRET_BYTES: Final = 32  # The specification wants 24 to 64; the length of the HMAC's digest.
HOOK_TIMEOUT_S: Final = 15.0  # One attempt, from the look-up of the name to the answer; it recommends 15 to 30.
HOOK_ANSWER_BYTES_MAX: Final = 64 * 1024  # What is read of an answer, and dropped; its status says everything.
HOOK_SENDS_MAX: Final = 32  # Attempts at once, of all hooks.
HOOK_SENDS_EACH_MAX: Final = 4  # … of one hook: a receiver that hangs holds up no other.
HOOK_LOOK_S: Final = 1.0  # How late a delivery that is due may begin; one look is one step in an index.
HOOK_EXPIRING_MS: Final = 3_600_000  # batch.expiring is told so long before: time to add an engine, or to send anew.
DELIVERIES_LIFETIME_MS: Final = 30 * DAY_MS  # Of those that were delivered or given up, for whoever looks for them.
DELIVERIES_LIST_MAX: Final = 1_000  # Of one list; as LIST_LIMIT_MAX.
DELIVERIES_FORGET_MS: Final = 3_600_000  # Between looks for old ones, which read the whole table.
TOLD_LIFETIME_MS: Final = 62 * DAY_MS  # What is told once a month must be known for the whole of it.

# --- Handing over to a batch endpoint (its own limits are those of the API above) ---------------------------------

HANDOFF_BYTES_MAX: Final = 256_000_000  # Of one create body; the API's 256 MB read the smaller way.
HANDOFFS_MAX: Final = 16  # Batches at one upstream at once; small tiers take 200,000 queued requests.
HANDOFF_GATHER_MS: Final = 2_000  # From the first ready request to the take: what a client sends together stays so.
HANDOFF_POLL_MS: Final = 1_000  # First wait between looks; grows by half each time.
HANDOFF_POLL_MS_MAX: Final = 60_000  # Most batches of the hosted API take minutes to an hour.
HANDOFF_LISTING_LAG_MS: Final = 120_000  # As JOB_LISTING_LAG_MS.
HANDOFF_GONE_AFTER_MS: Final = 3_600_000  # As JOB_GONE_AFTER_MS.
HANDOFF_SETTLE_MS: Final = 10_000  # Two idle polls of the worker: segments leased after a restart come within this.

# --- Nightly jobs ---------------------------------------------------------------------------------------------------

JOB_BATCH_REQUESTS: Final = 10_000  # Default; earlier partial results and less lost on trouble than 100,000 in one.
JOB_BATCH_BYTES: Final = 256_000_000  # Default, of the body as it is sent; the API's 256 MB read the smaller way.
JOB_SEGMENT_ROWS: Final = 1_000  # Rows that one transaction of the ledger writes; bounds memory, not speed.
JOB_SEGMENT_BYTES: Final = 4 * MIB  # The same by size, for long documents.
JOB_POLL_S: Final = 1.0  # First wait between looks at a batch; grows by half each time, 15 s after a minute.
JOB_POLL_S_MAX: Final = 300.0  # A job that waits for hours needs no finer clock.
JOB_CREATE_ATTEMPTS_MAX: Final = 3  # Tries of one create that broke, 1 s and 2 s apart.
JOB_LISTING_LAG_MS: Final = 120_000  # A batch that was made may be missing from a list this long.
JOB_GONE_AFTER_MS: Final = 3_600_000  # A 404 for a batch is believed after an hour; single ones were seen to pass.
JOB_LOCK_TTL_MS: Final = 60_000  # A job whose process vanished on another machine is free after this.
JOB_LOCK_RENEW_S: Final = 15.0  # Three renewals may fail before the lock runs out.
JOB_PREFLIGHT_ROWS: Final = 100  # From here on a changed job asks its first row in real time before the rest.
JOB_DOCUMENT_BYTES_MAX: Final = 32 * MIB  # Encoded; what POST /v1/messages takes as a whole.
JOB_HTTP_READ_S: Final = 600.0  # One answer, an upload of 256 MB included; the SDKs' own default.
JOB_HTTP_CONNECT_S: Final = 10.0  # As ENGINE_CONNECT_S.
JOB_READ_ROWS: Final = 1_000  # Rows of a source that are in memory at once.
JOB_LINE_BYTES_MAX: Final = 64 * MIB  # A line of a JSONL source: a request of 32 MiB, escaped at its worst.
JOB_PROMPT_CHARACTERS_MAX: Final = 32 * MIB  # What one template may make; a body of POST /v1/messages has 32 MiB.
JOB_NAMED_MAX: Final = 20  # Failed rows, or batches, that a report names one by one: a screenful.
JOB_ERROR_CHARACTERS_MAX: Final = 300  # Of one error in a report: some lines; servers quote whole requests.
JOB_MAIL_CHARACTERS_MAX: Final = 2 * MIB  # Of one mail, about 3 MB as base64; many servers refuse 10 MB.
JOB_PANEL_BATCHES_MAX: Final = 10  # Lines for batches in the panel; a terminal has 24.

# --- The console ----------------------------------------------------------------------------------------------------

CONSOLE_SESSION_MS: Final = 12 * 3600 * 1000  # A login lasts a working day.
CONSOLE_LOGINS_PER_MINUTE: Final = 10  # Attempts from one address; people mistype, programs guess.
CONSOLE_FORM_BYTES_MAX: Final = 64 * 1024  # Of a form that is posted; the largest holds lists of patterns.
CONSOLE_FORM_FIELDS_MAX: Final = 200  # In one form.
CONSOLE_GROUPS: Final = 100  # Lines of a table of usage: callers choose the names of models, and may choose many.
CONSOLE_DELIVERIES: Final = 50  # Deliveries of hooks on one page, the newest ones.
CONSOLE_BATCHES: Final = 50  # Batches on one page: a few screens, and at most so many statements.

# --- Looking at results (the console, exports) ----------------------------------------------------------------------

ROWS_PAGE: Final = 50  # Rows of results on a page of the console.
SEARCH_S_MAX: Final = 2.0  # One look through a batch, then a link to search on: a person waits for it.
SEARCH_BYTES_MAX: Final = 128 * MIB  # The same by inflated bytes; about as much as those seconds can hold.
SEARCH_TEXT_CHARACTERS_MAX: Final = 200  # Of what is searched for.
LOOKUP_S_MAX: Final = (
    10.0  # One row by its custom_id, anywhere in a batch; links tell where it is, and need no search.
)
EXCERPT_CHARACTERS: Final = 200  # Of an answer in the list.
BLOCK_CHARACTERS_MAX: Final = 20_000  # Of one text on the page of a row; beyond it a link to the whole.
BLOCKS_MAX: Final = 200  # Texts on either side of it, so that a page has some MB at the most.
PAGE_CHARACTERS_MAX: Final = 500_000  # Of all texts on either side.
PARQUET_FILES_MAX: Final = 2  # Made or being downloaded at once, each on disk and 100 MB of memory; beyond it 529.
PARQUET_BYTES_MAX: Final = 4096 * MIB  # Rows of one such file as JSON, on disk while it is made; beyond it 400.

assert LEASE_RENEW_MS * 2 + LEASE_TRUST_MARGIN_MS < LEASE_TTL_MS
assert INLINE_BYTES_MAX < SEGMENT_BYTES_MAX
assert BATCH_BODY_BYTES_MAX <= UPLOADS_BYTES_MAX
assert JOB_LOCK_RENEW_S * 3_000 < JOB_LOCK_TTL_MS
assert JOB_BATCH_BYTES < BATCH_BODY_BYTES_MAX
assert CANCEL_GRACE_MS < DRAIN_S_MAX * 1000
