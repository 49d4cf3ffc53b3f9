"""vLLM on the CPU with the model of the package, in a process of its own."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from overnight.engines.embedded import tiny_weights

PORT = 8123
SLOTS = 4
START_S = 900.0  # Most of it imports: 23 s on an idle machine, minutes on a busy one.
_FLAGS = f"""--served-model-name overnight-tiny --host 127.0.0.1 --port {PORT} --dtype float32 --max-model-len 4096
--max-num-seqs {SLOTS} --enforce-eager --enable-prefix-caching --enable-prompt-tokens-details
--scheduling-policy priority --enable-auto-tool-choice --tool-call-parser hermes""".split()
_SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}


@contextmanager
def running_vllm(installed: Path, folder: Path) -> Iterator[str]:
    """Its address. `installed` is where install.sh has put it; `folder` takes the model and the log."""
    programs = installed / "bin"
    environment = os.environ | _SETTINGS | {"PATH": f"{programs}:{os.environ['PATH']}"}
    convert = [programs / "python", Path(__file__).with_name("model.py"), tiny_weights(), folder / "model"]
    subprocess.run(convert, env=environment, check=True, capture_output=True)
    with (folder / "log").open("wb") as log:
        command = [programs / "vllm", "serve", folder / "model", *_FLAGS]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{PORT}"
    try:
        assert _is_healthy(url, process), (folder / "log").read_text(errors="replace")[-3000:]
        yield url
    finally:
        process.terminate()
        process.wait()


def _is_healthy(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Whether it gets healthy in time. It tells nobody when it is, so it is asked, once a second."""
    opener, until_s = build_opener(ProxyHandler({})), time.monotonic() + START_S
    while time.monotonic() < until_s:
        try:
            opener.open(f"{url}/health", timeout=1).close()
        except (URLError, TimeoutError):
            try:
                process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                continue
            return False
        return True
    return False
