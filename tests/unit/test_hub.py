"""engines.hub: model files by name. The hub itself is never asked."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from overnight.engines import hub
from overnight.errors import UsageError


@pytest.mark.parametrize(
    "name", ["hf:owner/file.gguf", "hf:owner/repo/file.bin", "owner/repo/file.gguf", "hf://x.gguf"]
)
def test_a_name_that_is_no_file_of_a_repository_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"write hf:owner/repository/file.gguf"):
        hub.resolve(name)


def test_without_the_client_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"pip install 'overnight\[hub\]'"):
        hub.resolve("hf:owner/repo/file.gguf")


def test_a_file_may_lie_in_a_folder_of_its_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(*, repo_id: str, filename: str) -> str:
        asked.append((repo_id, filename))
        return "/cache/file.gguf"

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=download))
    assert hub.resolve("hf:owner/repo/q8/file.gguf") == Path("/cache/file.gguf")
    assert asked == [("owner/repo", "q8/file.gguf")]


def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*, repo_id: str, filename: str) -> str:
        raise OSError(f"404 for {repo_id}/{filename}")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=download))
    with pytest.raises(UsageError, match=r"404 for owner/repo/file.gguf; check the name"):
        hub.resolve("hf:owner/repo/file.gguf")
