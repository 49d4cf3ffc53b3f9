"""What a chat/completions server knows beyond what all of them know. Pure.

Unknown fields are no matter of taste: transformers answers 422, OpenAI 400. So a field goes out only to a server
whose documentation names it.
Sources: https://platform.openai.com/docs/api-reference/chat/create,
https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html,
https://docs.sglang.ai/basic_usage/openai_api_completions.html,
https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md.
"""

from typing import Final, Literal, TypeAlias

import msgspec

DialectName: TypeAlias = Literal["auto", "common", "openai", "vllm", "sglang", "llamacpp"]


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """What one kind of server takes. The defaults are what every server takes."""

    name: DialectName
    has_max_completion_tokens: bool = False  # OpenAI's reasoning models refuse `max_tokens`.
    has_top_k: bool = False
    has_template_kwargs: bool = False  # `chat_template_kwargs`: whether the model thinks.
    has_priority: bool = False  # Lower is earlier.
    is_verbose: bool = False  # `verbose` tells which stop sequence matched, `return_progress` the input tokens early.
    forces_by_schema: bool = False  # It has no way to name the tool that must be called: see `engines.forced`.
    prefill: Literal["", "flags", "turn"] = ""  # How a last turn of the assistant is continued; "": it cannot be.
    # "turn": without being told to; a whole answer repeats it, a streamed one does not.
    count_path: str = ""  # From the root of the server. "": it cannot count.


COMMON: Final = Dialect(name="common")

_DIALECTS: Final = (
    COMMON,
    Dialect(name="openai", has_max_completion_tokens=True),
    Dialect(
        name="vllm",
        has_top_k=True,
        has_template_kwargs=True,
        has_priority=True,
        prefill="flags",
        count_path="/tokenize",
    ),
    Dialect(name="sglang", has_top_k=True, has_template_kwargs=True, prefill="flags"),
    Dialect(
        name="llamacpp",
        has_top_k=True,
        has_template_kwargs=True,
        is_verbose=True,
        forces_by_schema=True,
        prefill="turn",
        count_path="/v1/chat/completions/input_tokens",
    ),
)
_BY_NAME: Final[dict[str, Dialect]] = {dialect.name: dialect for dialect in _DIALECTS}


def given(name: DialectName, *, host: str) -> Dialect | None:
    """The dialect that an operator chose, or that the host alone tells; None: the server must be looked at."""
    if name == "auto":
        return _BY_NAME["openai"] if host == "api.openai.com" else None
    return _BY_NAME[name]


def of_owner(owner: str) -> Dialect | None:
    """The dialect of a server that calls itself `owner` (in `owned_by`, or before its metrics' names), if we know it.

    Not "openai": half of the proxies of this world say so.
    """
    return _BY_NAME[owner] if owner in ("vllm", "sglang", "llamacpp") else None
