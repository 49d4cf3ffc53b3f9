"""Jinja2 for everything that a job file words itself: prompts, derived columns, printed lines, mails.

A template is the job's own text; what it is filled with comes from strangers. So columns are values and never
templates, a name that is not there is an error and not an empty text, and nothing reaches files, attributes of Python
or dice: the same row renders to the same request on every night.
"""

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from jinja2 import StrictUndefined, TemplateSyntaxError, Undefined, UndefinedError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from overnight import limits
from overnight.errors import JobError
from overnight.jobs.row import FAILED


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if _size(operator, left, right) > limits.JOB_PROMPT_CHARACTERS_MAX:
            raise SecurityError(f"a value grows beyond {limits.JOB_PROMPT_CHARACTERS_MAX:,} characters")
        return super().call_binop(context, operator, left, right)


def _size(operator: str, left: Any, right: Any) -> int:
    """Characters or elements of a product, bits of a power."""
    if operator == "**":
        return int(left).bit_length() * int(right) if isinstance(left, int) and isinstance(right, int) else 0
    if isinstance(left, int):
        left, right = right, left
    return len(left) * right if isinstance(left, str | list | tuple) and isinstance(right, int) else 0


_JINJA: Final = _Environment(undefined=StrictUndefined, autoescape=False)
del _JINJA.globals["lipsum"], _JINJA.filters["random"]


class Template:
    """A text with names in it, compiled once. `where` begins every message: "[prompt] user"."""

    def __init__(self, text: str, where: str, *, of: str = "column") -> None:
        """JobError, with the line, where `text` is no template. `of`: what messages call its names."""
        self._where, self._of = where, of
        try:
            tree = _JINJA.parse(text)
            self.names = frozenset(meta.find_undeclared_variables(tree))
            self._compiled = _JINJA.from_string(text)
        except TemplateSyntaxError as error:
            raise JobError(f"{where}: line {error.lineno}: {error.message}") from error

    def render(self, names: Mapping[str, Any]) -> str:
        """The text for `names`. JobError where it names something else, fails, or grows beyond its bound."""
        try:
            return "".join(_bounded(self._compiled.generate(names)))
        except Exception as error:  # Whatever a filter or a method raises.
            raise JobError(f"{self._where}: {_reason(error, names, self._of)}") from error

    def check(self, known: Collection[str]) -> None:
        """JobError where a name is not among `known`."""
        for name in sorted(self.names.difference(known)):
            raise JobError(f"{self._where}: {_unknown(name, known, self._of)}")


class Expression:
    """A value computed from names, compiled once: "amount > 200000"."""

    def __init__(self, text: str, where: str) -> None:
        """JobError where `text` is no expression."""
        self._where = where
        try:
            tree = Parser(_JINJA, text, state="variable").parse_expression()
            output = nodes.Template([nodes.Output([tree], lineno=1)], lineno=1)
            output.set_environment(_JINJA)
            self.names = frozenset(meta.find_undeclared_variables(output))
            self._compiled = _JINJA.compile_expression(text, undefined_to_none=False)
        except TemplateSyntaxError as error:
            raise JobError(f"{where}: {error.message}, in {text!r}") from error

    def value(self, names: Mapping[str, Any]) -> Any:
        """The value for `names`, of the types JSON has. JobError where it names something else, or fails."""
        try:
            value = self._compiled(names)
            if isinstance(value, Undefined):
                str(value)  # Raises, with the name.
            return list(value) if isinstance(value, Iterator) else value
        except Exception as error:  # Whatever a filter or a method raises.
            raise JobError(f"{self._where}: {_reason(error, names, 'column')}") from error


class RowLine(Template):
    """A line for one answer. Names are those of `Answer.names`."""

    def render(self, names: Mapping[str, Any]) -> str:
        """The line. A failed row has no fields to fill it with, so unless the template itself names `state` or
        `error`, such a row is "<id>: Failed - <error>".
        """
        if names["state"] in FAILED and not self.names & {"state", "error"}:
            return f"{names['custom_id'] or names['key']}: Failed - {names['error'] or names['state']}"
        return super().render(names)


def _bounded(pieces: Iterable[str]) -> Iterator[str]:
    room = limits.JOB_PROMPT_CHARACTERS_MAX
    for piece in pieces:
        room -= len(piece)
        if room < 0:
            raise SecurityError(f"the text grows beyond {limits.JOB_PROMPT_CHARACTERS_MAX:,} characters")
        yield piece


def _reason(error: Exception, names: Iterable[str], of: str) -> str:
    undefined = re.fullmatch(r"'(\w+)' is undefined", str(error)) if isinstance(error, UndefinedError) else None
    if undefined is not None:
        return _unknown(undefined[1], names, of)
    return str(error) or type(error).__name__


def _unknown(name: str, known: Iterable[str], of: str) -> str:
    known = [*known]
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"there is no {of} {name!r}; the {of}s are {', '.join(known)}{hint}"
