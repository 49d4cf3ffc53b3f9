"""Models named `hf:owner/repo/file.gguf`: fetched from the Hugging Face hub once, then read from its cache.

The client is an optional dependency; its settings (HF_HOME, HF_TOKEN, HF_ENDPOINT) apply.
"""

from importlib import import_module
from pathlib import Path

from overnight.errors import UsageError

PREFIX = "hf:"


def resolve(name: str) -> Path:
    """The local file of `hf:owner/repo/file.gguf`, downloaded if need be: may take minutes and blocks.

    The file may lie in folders of the repository. Raises UsageError with what to do.
    """
    owner, _, rest = name.removeprefix(PREFIX).partition("/")
    repository, _, file = rest.partition("/")
    if not (name.startswith(PREFIX) and owner and repository and file.endswith(".gguf")):
        raise UsageError(f"{name!r} does not name a model file; write hf:owner/repository/file.gguf")
    try:
        hub = import_module("huggingface_hub")
    except ImportError as error:
        raise UsageError(f"{name} needs the hub's client: pip install 'overnight[hub]'") from error
    try:
        return Path(hub.hf_hub_download(repo_id=f"{owner}/{repository}", filename=file))
    except (OSError, ValueError) as error:  # All errors of the client derive from one of the two.
        raise UsageError(
            f"{name} could not be downloaded: {error}; check the name and the connection, or download the file "
            "yourself and give its path"
        ) from error
