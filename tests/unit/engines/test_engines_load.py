"""What servers say of themselves: engines.load and engines.listing."""

import asyncio
from collections.abc import AsyncGenerator, Mapping

import pytest

from overnight.engines import listing
from overnight.engines.engine import Load
from overnight.engines.load import SILENT_S, Metrics, is_there, read_load, read_maker
from overnight.engines.transport import ConnectFailed, Reply
from overnight.testing.virtualtime import VirtualClock, run

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3 \\"x} 9\\""} 12.0
vllm:num_requests_waiting{engine="0",model_name="q"} 3.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="q"} 99.0
vllm:kv_cache_usage_perc{engine="0",model_name="q"} 0.25
vllm:num_preemptions_total{engine="0",model_name="q"} 4.0
vllm:num_preemptions_created{engine="0",model_name="q"} 1.7e+09
"""
RANKS = """\
vllm:num_requests_running{engine="0"} 12.0
vllm:num_requests_running{engine="1"} 10.0 1700000000000
vllm:num_requests_waiting{engine="0"} 0.0
vllm:num_requests_waiting{engine="1"} 5.0
vllm:kv_cache_usage_perc{engine="0"} 0.9
vllm:kv_cache_usage_perc{engine="1"} 0.4
vllm:num_preemptions_total{engine="0"} 1.0
vllm:num_preemptions_total{engine="1"} 2.0
"""
SGLANG = """\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="m"} 7.0
sglang:num_queue_reqs{model_name="m"} 2.0
sglang:token_usage{model_name="m"} 0.5
"""
LLAMACPP = "llamacpp:requests_processing 2\nllamacpp:requests_deferred 1\nllamacpp:kv_cache_usage_ratio 0.125\n"


@pytest.mark.parametrize(
    ("text", "load"),
    [
        pytest.param(VLLM, Load(running=12, waiting=3, kv_share=0.25, preemptions=4), id="vllm"),
        pytest.param(
            VLLM.replace("\n", "\r\n"), Load(running=12, waiting=3, kv_share=0.25, preemptions=4), id="crlf"
        ),
        pytest.param(RANKS, Load(running=22, waiting=5, kv_share=0.9, preemptions=3), id="two ranks"),
        pytest.param(SGLANG, Load(running=7, waiting=2, kv_share=0.5), id="sglang"),
        pytest.param(LLAMACPP, Load(running=2, waiting=1, kv_share=0.125), id="llama.cpp"),
        pytest.param(
            LLAMACPP.rpartition("llamacpp:kv")[0], Load(running=2, waiting=1), id="llama.cpp without a cache ratio"
        ),
        pytest.param(LLAMACPP.replace("0.125", "NaN"), Load(running=2, waiting=1), id="not a number"),
        pytest.param(LLAMACPP.replace("0.125", "7"), Load(running=2, waiting=1, kv_share=1.0), id="more than all"),
        pytest.param("vllm:num_requests_running 1\n", None, id="only half of it"),
        pytest.param("# vllm:num_requests_running 1\n# vllm:num_requests_waiting 1\n", None, id="comments"),
        pytest.param("<html>vllm:num_requests_running 1</html>", None, id="a page"),
        pytest.param("vllm:num_requests_running many\nvllm:num_requests_waiting inf\n", None, id="no numbers"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_the_load_is_read_from_the_metrics_of_every_engine(text: str, load: Load | None) -> None:
    assert read_load(text) == load


@pytest.mark.parametrize(
    ("text", "maker"),
    [(VLLM, "vllm"), (SGLANG, "sglang"), (LLAMACPP, "llamacpp"), ("go_goroutines 7\n", ""), ("see vllm:x", "")],
)
def test_metrics_tell_whose_they_are(text: str, maker: str) -> None:
    assert read_maker(text) == maker


class Server:
    """A `Transport` whose server answers GETs by path: a status and a body, or no connection."""

    def __init__(self, **answers: tuple[int, str] | None) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def get(self, path: str, *, headers: Mapping[str, str], timeout_s: float) -> Reply:
        assert not headers
        assert timeout_s > 0
        self.asked.append(path)
        answer = self.answers.get(path.rpartition("/")[2], (404, ""))
        if answer is None:
            raise ConnectFailed("nobody there")
        return Reply(status=answer[0], headers={}, body=answer[1].encode())

    async def post(self, path: str, body: bytes, *, headers: Mapping[str, str], timeout_s: float) -> Reply:
        raise NotImplementedError

    def stream(
        self, path: str, body: bytes, *, headers: Mapping[str, str], timeout_s: float
    ) -> AsyncGenerator[Reply | bytes, None]:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    "answer",
    [(404, ""), (401, ""), (200, "<html>hello</html>"), (200, "go_goroutines 7\n")],
    ids=["none", "not for us", "a page", "somebody else's"],
)
def test_a_server_without_metrics_is_left_alone_for_ten_minutes(answer: tuple[int, str]) -> None:
    server = Server(metrics=answer)

    async def case() -> None:
        metrics = Metrics(server)
        assert [await metrics.load() for _ in range(5)] == [None] * 5
        await asyncio.sleep(SILENT_S - 1)
        assert await metrics.load() is None
        assert len(server.asked) == 1
        await asyncio.sleep(2)
        server.answers["metrics"] = (200, VLLM)
        assert (await metrics.load(), len(server.asked)) == (read_load(VLLM), 2)

    run(case(), VirtualClock())


@pytest.mark.parametrize(
    "answer",
    [None, (503, ""), (200, "# TYPE sglang:gen_throughput gauge\n")],
    ids=["away", "starting", "before the first request"],
)
def test_a_server_that_cannot_tell_yet_is_asked_again(answer: tuple[int, str] | None) -> None:
    server = Server(metrics=answer)

    async def case() -> None:
        metrics = Metrics(server)
        assert await metrics.load() is None
        server.answers["metrics"] = (200, SGLANG)
        assert await metrics.load() == read_load(SGLANG)

    run(case(), VirtualClock())


@pytest.mark.parametrize(
    ("answers", "there"),
    [
        pytest.param({"health": (200, "")}, True, id="healthy"),
        pytest.param({"health": (401, "")}, True, id="our key is wrong"),
        pytest.param({"health": (503, "")}, False, id="loading"),
        pytest.param({"models": (200, "")}, True, id="only models"),
        pytest.param({"models": (403, "")}, True, id="models that are not ours"),
        pytest.param({}, True, id="neither"),
        pytest.param({"models": (502, "")}, False, id="a proxy without its server"),
        pytest.param({"models": None}, False, id="gone between two looks"),
        pytest.param({"health": None}, False, id="nobody"),
    ],
)
def test_a_server_is_there_if_it_answers_properly(answers: dict[str, tuple[int, str] | None], there: bool) -> None:
    assert run(is_there(Server(**answers), models_path="/v1/models"), VirtualClock()) is there


@pytest.mark.parametrize("body", [b'{"data":null}', b"[" * 100_000, b"\xff", b"", b'{"data":[{"id":1}]}'])
def test_a_list_that_is_none_holds_no_models(body: bytes) -> None:
    assert listing.read(body) == []
