"""How a conversation is written for the model: the Jinja template of the GGUF, and the same for training."""

import json
from collections.abc import Sequence
from typing import Any

END, SYSTEM, USER, ASSISTANT = "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"  # One token each.
SPECIALS = (END, SYSTEM, USER, ASSISTANT)
TOOLS_BEGIN = "Tools:\n<tools>\n"
TOOLS_END = (
    "</tools>\nCall a tool like this:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)


def _quoted(text: str) -> str:
    """As Jinja writes it; `text` has no single quote."""
    return "'" + text.replace("\n", "\\n") + "'"


TEMPLATE = (
    "{%- if tools %}"
    "{{- '<|system|>' }}"
    "{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}"
    f"{{{{- {_quoted(TOOLS_BEGIN)} }}}}"
    "{%- for tool in tools %}"
    "{{- (tool.function if tool.function is defined else tool) | tojson }}{{- '\\n' }}"
    "{%- endfor %}"
    f"{{{{- {_quoted(TOOLS_END + END)} }}}}"
    "{%- elif messages[0].role == 'system' %}{{- '<|system|>' + messages[0].content + '<|end|>' }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{%- if message.role == 'user' %}{{- '<|user|>' + message.content + '<|end|>' }}"
    "{%- elif message.role == 'tool' %}"
    "{{- '<|user|><tool_response>\\n' + message.content + '\\n</tool_response><|end|>' }}"
    "{%- elif message.role == 'assistant' %}"
    "{{- '<|assistant|>' }}{%- if message.content %}{{- message.content }}{%- endif %}"
    "{%- for call in message.tool_calls or [] %}"
    '{{- \'<tool_call>\\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{%- if call.function.arguments is string %}{{- call.function.arguments }}"
    "{%- else %}{{- call.function.arguments | tojson }}{%- endif %}"
    "{{- '}\\n</tool_call>' }}"
    "{%- endfor %}{{- '<|end|>' }}"
    "{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
)


def system(text: str, tools: Sequence[dict[str, Any]] = ()) -> str:
    """A system turn, with the tools that are offered; nothing for neither."""
    if tools:
        described = "".join(json.dumps(tool, ensure_ascii=False) + "\n" for tool in tools)
        text = (f"{text}\n\n" if text else "") + TOOLS_BEGIN + described + TOOLS_END
    return f"{SYSTEM}{text}{END}" if text else ""


def call(name: str, arguments: str) -> str:
    """A tool call as the model writes it; `arguments` is JSON."""
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'
