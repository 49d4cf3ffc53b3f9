"""GET /v1/models, as the servers of both APIs answer it. Pure.

Sources: https://platform.claude.com/docs/en/api/models/list, https://platform.openai.com/docs/api-reference/models/list.
"""

import msgspec

from overnight.engines.engine import Model


class Listed(msgspec.Struct):
    """One model, in the words of all dialects."""

    id: str
    display_name: str = ""
    max_input_tokens: int | None = None
    max_tokens: int | None = None
    max_model_len: int | None = None  # vLLM's and SGLang's word for input and output together.
    owned_by: str = ""  # Which server it is: "vllm", "sglang", "llamacpp". Proxies say what they like.


class _List(msgspec.Struct):
    data: list[Listed]


def read(body: bytes) -> list[Listed]:
    """The models in `body`; none if it is not a list of models. Never raises."""
    try:
        return msgspec.json.decode(body, type=_List).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []


def model(listed: Listed) -> Model:
    """The model as engines tell it."""
    return Model(
        id=listed.id,
        display_name=listed.display_name or listed.id,
        max_input_tokens=listed.max_input_tokens or listed.max_model_len,
        max_tokens=listed.max_tokens,
    )
