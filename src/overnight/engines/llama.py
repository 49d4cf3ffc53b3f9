"""llama.cpp inside this process: the only module that touches xllamacpp.

Traps that decided the shape (measured with xllamacpp 2026.10.11549):
- Errors come as exceptions, as chunks with `error`, or as a chunk stream that simply ends.
- Only a call with a callback can be stopped, so every call has one. Chunks as text cost less than as dicts,
  and no more than a plain call once four of them run.
- The context is split over the slots: each has its own prefix cache and `context_tokens`.
- The HTTP listener inside cannot be switched off. It gets a random key and a random port on loopback, and is
  the only way to count tokens.
- Calls must have returned before the server goes, and the process must not fork with a model loaded.
"""

import http.client
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import xllamacpp

from overnight.errors import UsageError

_QUIETEST = -1
_HTTP_THREADS = 2  # Only we ask, one count at a time; the default is one thread per core.
_COUNT_TIMEOUT_S = 60.0  # Reading the largest prompt takes about a second.


class Rejected(Exception):
    """llama.cpp read the body and will not work on it: a schema, or a turn that the template does not allow."""


class Failed(Exception):
    """llama.cpp could not do it, and it is not known to be the request's fault."""


class _TemplateCaps(msgspec.Struct):
    supports_tools: bool = False


class _Settings(msgspec.Struct):
    n_ctx: int


class _Props(msgspec.Struct):
    default_generation_settings: _Settings
    chat_template_caps: _TemplateCaps = msgspec.field(default_factory=_TemplateCaps)


class _Count(msgspec.Struct):
    input_tokens: int


class _Fault(msgspec.Struct):
    message: str = ""


class _FaultReply(msgspec.Struct):
    error: _Fault


class Llama:
    """A loaded model. Every method blocks, and may be called from many threads at once."""

    def __init__(
        self, path: Path, *, slots: int, context_tokens: int, threads: int, key: str, chat_template: str
    ) -> None:
        """Load `path`. Raises UsageError that names it. An empty `chat_template` means the model's own."""
        _check_is_gguf(path)
        wanted = xllamacpp.CommonParams()
        wanted.model.path = str(path)
        wanted.model_alias = {path.stem}  # Else the listener tells the path.
        wanted.chat_template = chat_template
        wanted.n_parallel = slots
        wanted.n_ctx = slots * context_tokens  # Per slot llama.cpp allows no more than the model was trained with.
        wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = threads
        wanted.cache_ram_mib = 0  # The default is 8 GiB, and brings no more hits than the slots do.
        wanted.warmup = False
        wanted.verbosity = _QUIETEST
        wanted.hostnames = ["127.0.0.1"]
        wanted.api_keys = [key]
        wanted.n_threads_http = _HTTP_THREADS
        wanted.ui = wanted.endpoint_slots = False
        self._key = key
        try:
            self._server = xllamacpp.Server(wanted)
        except RuntimeError as error:
            raise UsageError(
                f"llama.cpp cannot load {path}: it is damaged, cut short, of an unknown kind, or too large for the "
                f"memory ({slots} slots of {context_tokens} tokens); fetch it again or name another model"
            ) from error
        props = msgspec.json.decode(self._ask("GET", "/props", ""), type=_Props)
        self.context_tokens = props.default_generation_settings.n_ctx  # Of one slot.
        self.knows_tools = props.chat_template_caps.supports_tools

    def chat(self, body: str, take: Callable[[str], bool]) -> None:
        """Answer `body`: `take` gets each chunk, JSON, in this thread, until the end or until it returns True.

        Raises Rejected or Failed. A refusal that llama.cpp finds later is a chunk with `error`.
        """
        try:
            self._server.handle_chat_completions(body, take)
        except ValueError as error:
            raise Rejected(str(error)) from error
        except RuntimeError as error:
            raise Failed(str(error)) from error

    def count(self, body: str) -> int:
        """Tokens of the rendered prompt of `body`, exactly as `chat` would read it. Raises as `chat` does."""
        return msgspec.json.decode(
            self._ask("POST", "/v1/chat/completions/input_tokens", body), type=_Count
        ).input_tokens

    def close(self) -> None:
        """Free the model and its threads. No call may be running, none may follow."""
        del self._server

    def _ask(self, method: str, path: str, body: str) -> bytes:
        # Not urllib: it would hand our own loopback address to a proxy that the environment names.
        connection = http.client.HTTPConnection(
            urlsplit(self._server.listening_address).netloc, timeout=_COUNT_TIMEOUT_S
        )
        try:
            connection.request(method, path, body.encode(), {"authorization": f"Bearer {self._key}"})
            reply = connection.getresponse()
            answer = reply.read()
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"llama.cpp does not answer {path}: {error}") from error
        finally:
            connection.close()
        if reply.status == http.client.OK:
            return answer
        said = _fault(answer)
        raise (
            Rejected(said)
            if http.client.BAD_REQUEST <= reply.status < http.client.INTERNAL_SERVER_ERROR
            else Failed(said)
        )


def _check_is_gguf(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise UsageError(f"the model file {path} cannot be read: {error.strerror}; check the path") from error
    if magic != b"GGUF":
        raise UsageError(f"the model file {path} is not a GGUF file; fetch the GGUF version of the model")


def _fault(answer: bytes) -> str:
    try:
        return msgspec.json.decode(answer, type=_FaultReply).error.message
    except msgspec.DecodeError:
        return answer[:500].decode("utf-8", "replace")
