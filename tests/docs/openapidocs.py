"""docs/reference/openapi.md: what `GET /openapi.json` says, for people. `renew.py` writes it."""

import re
from collections.abc import Iterator
from typing import Any, TypeAlias

from docpages import ROOT
from refdocs import markdown

from overnight.server import openapi

OPENAPI = ROOT / "docs" / "reference" / "openapi.md"
Json: TypeAlias = dict[str, Any]
SENTENCE = r"(?<=\.) +(?=[A-Z`])"  # Between two of them; pages have one a line.
EVERYWHERE = {
    "request-id",
    "anthropic-workspace-id",
    "anthropic-organization-id",
}  # Said once, at the top of the page.


def openapi_text() -> str:
    """Every operation, then every schema."""
    document = openapi.described(needs_key=True, needs_version=True)
    page = _Page(document)
    operations = [
        page.operation(method, path, found)
        for path, methods in document["paths"].items()
        for method, found in methods.items()
    ]
    schemas = [page.schema(name, found) for name, found in document["components"]["schemas"].items()]
    return "\n" + "".join(operations) + "## Schemas\n\n" + "".join(schemas)


class _Page:
    def __init__(self, document: Json) -> None:
        self._document = document

    def operation(self, method: str, path: str, found: Json) -> str:
        needs_no_key = found.get("security") == []
        said = f"{found['summary']}. {found.get('description', '')} {'Needs no key.' if needs_no_key else ''}".strip()
        text = f"## `{method.upper()} {path}`\n\n{re.sub(SENTENCE, chr(10), said)}\n\n"
        if parameters := [self._parameter(self._resolved(item)) for item in found.get("parameters", ())]:
            text += markdown(["parameter", "in", "value", ""], parameters) + "\n"
        if body := found.get("requestBody"):
            kinds = ", ".join(f"{self.kind(item['schema'])} as `{media}`" for media, item in body["content"].items())
            text += f"Body: {kinds}{'' if body.get('required') else ', or none'}.\n\n"
        answers = [self._answer(status, self._resolved(item)) for status, item in sorted(found["responses"].items())]
        return text + markdown(["status", "answer", "body", "headers"], answers) + "\n"

    def schema(self, name: str, found: Json) -> str:
        text = f"### {name}\n\n"
        if "properties" not in found:
            return f"{text}{self.kind(found)}\n\n"
        required = found.get("required", ())
        rows = [
            [f"`{field}`", self.kind(kind), "" if field in required else "may be absent", _said(kind)]
            for field, kind in found["properties"].items()
        ]
        return text + (markdown(["field", "value", "", ""], rows) if rows else "An object.\n") + "\n"

    def _parameter(self, found: Json) -> list[str]:
        needed = ["needed"] if found.get("required") else []
        said = "; ".join(filter(None, [*needed, found.get("description", "")]))
        return [f"`{found['name']}`", found["in"], self.kind(found["schema"]), said.replace("|", "\\|")]

    def _answer(self, status: str, found: Json) -> list[str]:
        bodies = [
            f"`{media}`" if media != "application/json" else self.kind(item.get("schema", {}))
            for media, item in found.get("content", {}).items()
        ]
        headers = [f"`{name}`" for name in found.get("headers", {}) if name not in EVERYWHERE]
        return [status, found["description"], ", ".join(bodies), ", ".join(headers)]

    def kind(self, schema: Json) -> str:
        """A schema in a few words, with links to those that have a name."""
        match schema:
            case {"$ref": str(target)}:
                name = target.rpartition("/")[2]
                found = f"[{name}](#{name.lower()})"
            case {"anyOf": list(several)} | {"oneOf": list(several)}:
                found = " or ".join(dict.fromkeys(map(self.kind, several)))
            case {"enum": list(values)}:
                found = " or ".join(f"`{value}`" for value in values)
            case {"const": value}:
                found = f"`{value}`"
            case {"type": "array"}:
                found = f"list of {self.kind(schema['items'])}" if "items" in schema else "list"
            case {"type": list(several)}:
                found = " or ".join(several)
            case {"type": "object"}:
                found = self._object(schema)
            case _:
                found = ", ".join([schema.get("format", schema.get("type", "anything")), *_bounds(schema)])
        return found

    def _object(self, schema: Json) -> str:
        if fields := schema.get("properties"):
            return "{" + ", ".join(f"`{name}`: {self.kind(kind)}" for name, kind in fields.items()) + "}"
        values = schema.get("additionalProperties")
        return f"object of {self.kind(values)}" if isinstance(values, dict) else "object"

    def _resolved(self, found: Json) -> Json:
        if "$ref" not in found:
            return found
        at: Any = self._document
        for part in found["$ref"].removeprefix("#/").split("/"):
            at = at[part]
        assert isinstance(at, dict)
        return at


_BOUNDS = {
    "minimum": "≥ {:,}",
    "exclusiveMinimum": "> {:,}",
    "maximum": "≤ {:,}",
    "minLength": "at least {:,} characters",
    "maxLength": "at most {:,} characters",
}


def _bounds(schema: Json) -> Iterator[str]:
    for name, said in _BOUNDS.items():
        if name in schema:
            yield said.format(schema[name])
    if "pattern" in schema:
        pattern = schema["pattern"].replace("|", "\\|")
        yield f"`{pattern}`"
    if "default" in schema:
        yield f"default `{schema['default']}`"


def _said(schema: Json) -> str:
    return str(schema.get("description", "")).replace("\n", " ").replace("|", "\\|")
