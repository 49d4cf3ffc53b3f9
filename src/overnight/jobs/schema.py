"""What an answer must look like: choices, a JSON Schema, a short form of one, or a pydantic model."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

import jsonschema
from jsonschema.protocols import Validator

from overnight.errors import JobError
from overnight.jobs.jobfile import Output

Json = dict[str, Any]
_TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")
_SCHEMA_WORDS = ("type", "properties", "$ref", "anyOf", "oneOf", "allOf", "enum", "const", "$defs")
_KEYWORDS = frozenset(jsonschema.Draft202012Validator.VALIDATORS) | {
    "$schema",
    "$id",
    "$defs",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "definitions",
}


class PydanticModel(Protocol):
    """The little of a pydantic model class that we use; pydantic itself is the user's."""

    __name__: str

    def model_json_schema(self) -> Json:
        """Its JSON Schema."""
        ...

    def model_validate(self, obj: Any) -> Any:
        """An instance; ValueError if `obj` is none."""
        ...


class NotValid(ValueError):
    """An answer is not what it must be; the message says where and why, for the person and for the model."""


class Shape:
    """A JSON Schema and how to check a value against it."""

    def __init__(self, schema: Json, *, model: PydanticModel | None = None) -> None:
        self.schema = schema
        self._model = model
        kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        try:
            kind.check_schema(schema)
        except jsonschema.SchemaError as error:
            raise JobError(f"[output] schema: {error.message}") from error
        self._validator: Validator = kind(schema)

    def checked(self, value: Any) -> Any:
        """`value`, or an instance of the model. Raises NotValid."""
        if self._model is not None:
            try:
                return self._model.model_validate(value)
            except ValueError as error:
                raise NotValid(" ".join(str(error).split())) from error
        found = jsonschema.exceptions.best_match(self._validator.iter_errors(value))
        if found is not None:
            where = ".".join(map(str, found.absolute_path))
            raise NotValid(f"{where}: {found.message}" if where else found.message)
        return _with_whole_numbers(value, self.schema)


def _with_whole_numbers(value: Any, schema: Any) -> Any:
    """124500.0 is an integer to JSON Schema; it is stored and printed as 124500."""
    if not isinstance(schema, dict):
        return value
    if isinstance(value, float) and value.is_integer() and "integer" in schema.get("type", ""):
        return int(value)
    if isinstance(value, list):
        return [_with_whole_numbers(item, schema.get("items")) for item in value]
    if isinstance(value, dict):
        fields = schema.get("properties", {})
        return {name: _with_whole_numbers(item, fields.get(name)) for name, item in value.items()}
    return value


def shape_of(output: Output, *, home: Path) -> Shape | None:
    """The shape that [output] names, if any. `home`: where files and modules are looked for."""
    given = [name for name in ("choices", "schema", "file", "model") if getattr(output, name)]
    if len(given) > 1:
        raise JobError(f"[output] may have one of choices, schema, file and model, and has {' and '.join(given)}")
    if output.model:
        return shape_of_model(_imported(output.model, home))
    if output.file:
        return Shape(_from_file(home / output.file))
    return Shape(expanded(output.schema)) if output.schema else None


def shape_of_model(model: PydanticModel) -> Shape:
    """The shape of a pydantic model."""
    return Shape(_closed(model.model_json_schema()), model=model)


def expanded(schema: Json) -> Json:
    """The short form as JSON Schema: each key is a field, its value a type's name or a schema; all are required."""
    if any(word in schema for word in _SCHEMA_WORDS) and not _is_short(schema):
        return schema
    properties = {name: _field(name, value) for name, value in schema.items()}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _is_short(schema: Json) -> bool:
    """A field may be called "type" or "enum": no schema has a key that is no keyword, or a type's name for `enum`."""
    if any(name not in _KEYWORDS for name in schema):
        return True
    if schema.get("type") in ("object", "array") or isinstance(schema.get("properties"), dict):
        return False
    return all(isinstance(value, dict) or value in _TYPES for value in schema.values())


def _field(name: str, value: Any) -> Json:
    if isinstance(value, str):
        if value not in _TYPES:
            raise JobError(f"[output.schema] {name}: {value!r} is no type; the types are {', '.join(_TYPES)}")
        return {"type": value}
    if isinstance(value, list):
        return {"enum": value}
    if isinstance(value, dict):
        if "type" not in value and isinstance(value.get("enum"), list) and _are_texts(value["enum"]):
            return {"type": "string", **value}
        return cast(Json, value)
    raise JobError(f"[output.schema] {name}: a field is a type, a list of values, or a JSON Schema")


def _are_texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _closed(schema: Json) -> Json:
    """Structured outputs of the API want objects without further properties."""
    for part in (schema, *schema.get("$defs", {}).values()):
        if part.get("type") == "object":
            part.setdefault("additionalProperties", False)
    return schema


def _from_file(path: Path) -> Json:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise JobError(f"[output] file: cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise JobError(f"[output] file: {path} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise JobError(f"[output] file: {path} holds no JSON Schema, which is an object")
    return found


def _imported(name: str, home: Path) -> PydanticModel:
    found = imported(name, home, where="[output] model")
    if not hasattr(found, "model_json_schema"):
        raise JobError(f"[output] model: {name} is no pydantic model")
    return cast(PydanticModel, found)


def imported(name: str, home: Path, *, where: str) -> Callable[..., Any]:
    """What `module:name` names; modules beside the job file are found too."""
    import sys  # noqa: PLC0415  Only where a job names code.

    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise JobError(f"{where}: {name!r} should be module:name")
    if str(home) not in sys.path:
        sys.path.insert(0, str(home))
    try:
        return cast(Callable[..., Any], getattr(importlib.import_module(module), attribute))
    except (ImportError, AttributeError) as error:
        raise JobError(f"{where}: cannot import {name}: {error}") from error
