"""What an HTTP engine says of itself without being asked anything: its metrics, and that it is there.

Sources: https://docs.vllm.ai/en/latest/usage/metrics.html, https://docs.sglang.ai/references/production_metrics.html,
https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md (GET /metrics),
https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

import asyncio
import math
import re
from typing import Final

from overnight.engines.engine import Load
from overnight.engines.transport import Reply, Transport, TransportError

LOOK_TIMEOUT_S: Final = 10.0  # A look that takes longer says nothing about now.
SILENT_S: Final = 600.0  # A server without metrics may get some when it is started anew, not sooner.

_RUNNING: Final = ("vllm:num_requests_running", "sglang:num_running_reqs", "llamacpp:requests_processing")
_WAITING: Final = ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred")
_KV: Final = (
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",  # Its name before vLLM 0.10.
    "sglang:token_usage",
    "llamacpp:kv_cache_usage_ratio",
)
_PREEMPTIONS: Final = ("vllm:num_preemptions_total",)
_SAMPLE: Final = re.compile(
    rf"^({'|'.join((*_RUNNING, *_WAITING, *_KV, *_PREEMPTIONS))})(?:\{{.*\}})?[ \t]+(\S+)", re.MULTILINE
)
_MAKER: Final = re.compile(r"^(?:# (?:HELP|TYPE) )?(vllm|sglang|llamacpp):", re.MULTILINE)


def read_load(text: str) -> Load | None:
    """The load in Prometheus text of vLLM, SGLang or llama.cpp; None if it does not tell what runs and what waits.

    The ranks of one server are added up, and of the shares of memory the largest counts: it is the first to run out.
    """
    samples = [(name, value) for name, said in _SAMPLE.findall(text) if (value := _number(said)) is not None]
    running, waiting = _values(samples, _RUNNING), _values(samples, _WAITING)
    if not running or not waiting:
        return None
    kv, preemptions = _values(samples, _KV), _values(samples, _PREEMPTIONS)
    return Load(
        running=round(sum(running)),
        waiting=round(sum(waiting)),
        kv_share=min(1.0, max(0.0, *kv)) if kv else None,
        preemptions=round(sum(preemptions)) if preemptions else None,
    )


def read_maker(text: str) -> str:
    """Whose metrics these are: vllm, sglang or llamacpp; empty for anything else."""
    found = _MAKER.search(text)
    return found[1] if found else ""


class Metrics:
    """GET /metrics of one server. One that has none of use is left alone for `SILENT_S` of loop time."""

    def __init__(self, transport: Transport) -> None:
        """`transport` leads to the root of the server."""
        self._transport = transport
        self._silent_until_s = -math.inf

    async def load(self) -> Load | None:
        """What the server says now. None: it cannot tell, or does not answer. Never raises."""
        return read_load(await self._text())

    async def maker(self) -> str:
        """As `read_maker`. Never raises."""
        return read_maker(await self._text())

    async def _text(self) -> str:
        now_s = asyncio.get_running_loop().time()
        if now_s < self._silent_until_s:
            return ""
        reply = await _look(self._transport, "/metrics")
        if reply is None or reply.status >= 500:
            return ""
        text = reply.body.decode("utf-8", "replace") if reply.status == 200 else ""
        if not read_maker(text):
            self._silent_until_s = now_s + SILENT_S
        return text


async def is_there(transport: Transport, *, models_path: str) -> bool:
    """Whether a server would answer: GET /health, or its models where it has none, is below 500. Never raises."""
    reply = await _look(transport, "/health")
    if reply is not None and reply.status in (404, 405):
        reply = await _look(transport, models_path)
    return reply is not None and reply.status < 500


async def _look(transport: Transport, path: str) -> Reply | None:
    try:
        return await transport.get(path, headers={}, timeout_s=LOOK_TIMEOUT_S)
    except TransportError:
        return None


def _values(samples: list[tuple[str, float]], names: tuple[str, ...]) -> list[float]:
    return [value for name, value in samples if name in names]


def _number(said: str) -> float | None:
    try:
        value = float(said)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
