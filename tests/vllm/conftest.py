"""Collected by `make test-vllm` alone: vLLM is 3.5 GB and starts for minutes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from vllmserver import running_vllm

INSTALLED = os.environ.get("OVERNIGHT_VLLM", "")

collect_ignore_glob = [] if INSTALLED else ["test_*.py"]


@pytest.fixture(scope="session")
def vllm_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_vllm(Path(INSTALLED), tmp_path_factory.mktemp("vllm")) as url:
        yield url
