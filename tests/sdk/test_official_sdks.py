"""The official SDKs as they are, old and new: one scenario, one server, only `base_url` and `api_key` changed.

`make sdks` (tests/sdk/install.sh) installs those that are not in .venv.
"""

import json
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from overnight.testing.observed import ObservedServer

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]
_SECONDS_MAX = 120
_key_numbers = count()


class Sdk(NamedTuple):
    """One official SDK, how its programs are run, and where it differs from the others."""

    version: str
    command: tuple[str, ...]
    too_large: str = "ContentTooLargeError"
    has_delete: bool = True


_CURRENT = Sdk("2.11.0", (sys.executable, str(_HERE / "python" / "scenario.py")))
_TYPESCRIPT = Sdk("1.11.0", ("node", str(_HERE / "typescript" / "scenario.mjs")))
_PYTHON_1 = Sdk(
    "1.17.0",
    (str(_ROOT / ".venv-sdk-1" / "bin" / "python"), str(_HERE / "python" / "scenario.py")),
    too_large="RequestTooLargeError",
)
_PYTHON_0 = Sdk(
    "0.39.0",
    (str(_ROOT / ".venv-sdk-0" / "bin" / "python"), str(_HERE / "python" / "scenario.py")),
    too_large="APIStatusError",
    has_delete=False,
)


def _seen(sdk: Sdk, server: ObservedServer) -> Any:
    """What the scenario reports, run with a key that nobody used before."""
    command = [*sdk.command, server.url, f"key-{next(_key_numbers)}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False)
    assert done.returncode == 0, f"{done.stderr}\nIs it installed? make sdks"
    return json.loads(done.stdout)


def _batch(status: str, *counts: int) -> dict[str, object]:
    has_ended = status == "ended"
    return {
        "status": status,
        "counts": list(counts),
        "hours": 24,
        "has_end": has_ended,
        "has_results": has_ended,
    }


def _expected(sdk: Sdk) -> dict[str, object]:
    return {
        "version": sdk.version,
        "created": _batch("in_progress", 3, 0, 0, 0, 0),
        "ended": _batch("ended", 0, 2, 1, 0, 0),
        "results": {"a": "echo: one", "b": "echo: two", "bad": "max_tokens: must be greater than or equal to 1"},
        "listed_in_order": True,
        "canceled": _batch("canceling", 1, 0, 0, 0, 0),
        "canceled_ended": _batch("ended", 0, 0, 0, 1, 0),
        "canceled_results": {"held": "canceled"},
        "deleted": ["message_batch_deleted", True, "NotFoundError"] if sdk.has_delete else None,
        "errors": {
            "unknown": ["NotFoundError", 404, "not_found_error"],
            "empty": ["BadRequestError", 400, "invalid_request_error"],
            "too_large": [sdk.too_large, 413, "request_too_large"],
            "wrong_key": ["AuthenticationError", 401, "authentication_error"],
        },
        "message": "echo: hello",
        "streamed": "echo: a few words",
    }


def test_12_the_installed_typescript_sdk_completes_a_batch(server: ObservedServer) -> None:
    """The installed TypeScript SDK does the same. [seen in SDK source]

    (As check 11: with only `base_url` and `api_key` changed it completes create → retrieve → results.) And it lists
    page by page, cancels, deletes, raises its typed errors, asks for a message and streams one."""
    assert _seen(_TYPESCRIPT, server) == _expected(_TYPESCRIPT)


@pytest.mark.parametrize("sdk", [_CURRENT, _PYTHON_1, _PYTHON_0], ids=lambda sdk: sdk.version)
def test_the_python_sdks_do_everything(server: ObservedServer, sdk: Sdk) -> None:
    """Keys as `Authorization: Bearer` (2.x) or `x-api-key` (before), beta paths (0.39), a list that is read until a
    page is empty (0.39): nothing of it needs a word from the user. 0.39 has no delete."""
    assert _seen(sdk, server) == _expected(sdk)
