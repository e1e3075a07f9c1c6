"""Writes `operations.py` from the OpenAPI document: `python -m app.client.generate`, whenever the API changes."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel
from pydantic.dataclasses import is_pydantic_dataclass

from app.core.config import Settings
from app.factory import create_app

TARGET = Path(__file__).with_name("operations.py")
LEFT_OUT = {"follow_events": "a stream: `events()` of the clients is written by hand"}
"""Operations without a generated method, and why."""

_HEAD = '''"""Each operation of the API as a method. Generated: see `python -m app.client.generate`."""

from __future__ import annotations
'''
_PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a method, and where it travels."""

    name: str
    sent_as: str
    place: str
    """`path`, `query`, `header` or `body`."""
    annotation: str
    default: str | None
    """None: it has to be given."""

    @property
    def is_positional(self) -> bool:
        """It has to be given, and says what it is without its name, which `True` does not."""
        return self.default is None and self.annotation != "bool"

    def declared(self) -> str:
        return f"{self.name}: {self.annotation}" + (f" = {self.default}" if self.default is not None else "")


def operations_source(document: Mapping[str, Any]) -> str:
    """The text of `operations.py` for this OpenAPI document.

    Raises:
        ValueError: an operation has a form that no method can have; the message names it.
    """
    return _Writer(document).source()


class _Writer:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._classes = _classes()
        self._used: set[str] = set()

    def source(self) -> str:
        methods = [
            (method.upper(), path, operation)
            for path, of_path in self._document["paths"].items()
            for method, operation in of_path.items()
            if operation["operationId"] not in LEFT_OUT
        ]
        classes = [
            self._class("Operations", "All operations, blocking.", methods, prefix="", await_=""),
            self._class("AsyncOperations", "All operations, to await.", methods, prefix="async ", await_="await "),
        ]
        return _formatted("\n".join([_HEAD, *self._imports(), *classes]))

    def _class(self, name: str, doc: str, methods: list[Any], *, prefix: str, await_: str) -> str:
        lines = [
            f"class {name}(ABC):",
            f'    """{doc}"""',
            "",
            "    @abstractmethod",
            f"    {prefix}def _call(self, method: str, path: str, answer: type[T], *,",
            "        query: Mapping[str, Any] = {}, headers: Mapping[str, Any] = {}, body: Any = None) -> T: ...",
        ]
        for method, path, operation in methods:
            lines += ["", *self._method(method, path, operation, prefix, await_)]
        return "\n".join([*lines, ""])

    def _method(
        self, method: str, path: str, operation: Mapping[str, Any], prefix: str, await_: str
    ) -> Iterator[str]:
        name = operation["operationId"]
        arguments = list(self._arguments(operation))
        if len({argument.name for argument in arguments}) < len(arguments):
            raise ValueError(f"{name}: two of its parameters and fields have the same name; rename one in the API")
        positional = [argument for argument in arguments if argument.is_positional]
        named = [argument for argument in arguments if not argument.is_positional]
        declared = ["self", *(a.declared() for a in positional), *(["*"] if named else [])]
        declared += [argument.declared() for argument in named]
        answer = self._answer(operation)
        yield f"    {prefix}def {name}({', '.join(declared)}) -> {answer}:"
        yield textwrap.indent(_docstring(operation), " " * 8)
        call = [json.dumps(method), _path(path), "NoneType" if answer == "None" else answer]
        for place, keyword in (("query", "query"), ("header", "headers"), ("body", "body")):
            sent = [f"{json.dumps(a.sent_as)}: {a.name}" for a in arguments if a.place == place]
            if sent:
                call.append(f"{keyword}={{{', '.join(sent)}}}")
        if any(argument.place == "whole body" for argument in arguments):
            call.append("body=body")
        statement = f"{await_}self._call({', '.join(call)})"
        yield f"        {statement}" if answer == "None" else f"        return {statement}"

    def _arguments(self, operation: Mapping[str, Any]) -> Iterator[Argument]:
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
        fields = list(self._of_body(body)) if body is not None else []
        in_body = {field.name for field in fields}
        parameters = [self._of_parameter(parameter) for parameter in operation.get("parameters", [])]
        yield from (parameter for parameter in parameters if parameter.place == "path")
        yield from fields
        for parameter in parameters:
            # A header that says the same as a field of the body is there for clients without a body of their own.
            said_twice = parameter.place == "header" and parameter.name in in_body
            if parameter.place != "path" and not said_twice:
                yield parameter

    def _of_parameter(self, parameter: Mapping[str, Any]) -> Argument:
        schema = parameter["schema"]
        annotation = self._type(schema).replace("list[", "Sequence[")
        default = None
        if not parameter.get("required", False):
            default = self._literal(schema.get("default"), annotation)
        return Argument(
            parameter["name"].replace("-", "_"), parameter["name"], parameter["in"], annotation, default
        )

    def _of_body(self, schema: Mapping[str, Any]) -> Iterator[Argument]:
        model = self._model_of(schema)
        if model is None:
            yield Argument("body", "", "whole body", self._type(schema), None)
            return
        required = model.get("required", [])
        for name, field in model["properties"].items():
            annotation = self._type(field)
            if name in required:
                yield Argument(name, name, "body", annotation, None)
            else:
                yield Argument(name, name, "body", _none_last(f"{annotation} | Unset"), "UNSET")

    def _model_of(self, schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The object that a body is, or may be; None: it is no object with fields."""
        for option in schema.get("anyOf", [schema]):
            if "$ref" in option:
                found: Mapping[str, Any] = self._document["components"]["schemas"][_name(option)]
                return found if "properties" in found else None
        return None

    def _answer(self, operation: Mapping[str, Any]) -> str:
        for status, response in operation["responses"].items():
            if status.startswith("2"):
                content = response.get("content", {}).get("application/json")
                return self._type(content["schema"]) if content else "None"
        raise ValueError(f"{operation['operationId']}: the document names no successful answer")

    def _type(self, schema: Mapping[str, Any]) -> str:
        if "$ref" in schema:
            return self._class_of(_name(schema))
        for union in ("anyOf", "oneOf", "allOf"):
            if union in schema:
                options = [self._type(option) for option in schema[union]]
                return _none_last(" | ".join(options))
        if "const" in schema or "enum" in schema:
            return (
                f"Literal[{', '.join(json.dumps(value) for value in schema.get('enum', [schema.get('const')]))}]"
            )
        kind = schema.get("type")
        if kind == "array":
            return f"list[{self._type(schema.get('items', {}))}]"
        if kind == "object":
            values = schema.get("additionalProperties")
            return f"dict[str, {self._type(values) if isinstance(values, Mapping) else 'Any'}]"
        if kind == "string" and schema.get("format") == "date-time":
            return "datetime"
        return _PLAIN.get(str(kind), "Any")

    def _class_of(self, name: str) -> str:
        if name not in self._classes and "__" not in name:
            return "Any"  # a type of pydantic's own, such as JsonValue
        if len(self._classes.get(name, ())) != 1:
            raise ValueError(f"two classes are named {name.rpartition('__')[2]}; rename one of them")
        self._used.add(name)
        return name

    def _literal(self, value: Any, annotation: str) -> str:
        """A default as Python; that of an enumeration is its member."""
        kind = next(iter(self._classes.get(annotation, ())), None)
        if kind is not None and issubclass(kind, Enum):
            return f"{annotation}.{kind(value).name}"
        return repr(value) if not isinstance(value, str) else json.dumps(value)

    def _imports(self) -> Iterator[str]:
        yield from (
            "from abc import ABC, abstractmethod",
            "from collections.abc import Mapping, Sequence",
            "from datetime import datetime",
            "from types import NoneType",
            "from typing import Any, Literal",
            "",
        )
        by_module = defaultdict(set, {"app.client.sending": {"T", "UNSET", "Unset", "path_part"}})
        for name in self._used:
            (kind,) = self._classes[name]
            by_module[kind.__module__].add(name)
        for module, names in sorted(by_module.items()):
            yield f"from {module} import {', '.join(sorted(names, key=_import_order))}"
        yield ""


def _classes() -> dict[str, set[type[Any]]]:
    """Our own models and enumerations, by their name."""
    found = defaultdict(set)
    for name, module in sorted(sys.modules.items()):
        if name.startswith("app."):
            for kind in vars(module).values():
                if inspect.isclass(kind) and kind.__module__ == name and _has_schema(kind):
                    found[kind.__name__].add(kind)
    return dict(found)


def _has_schema(kind: type[Any]) -> bool:
    return issubclass(kind, (BaseModel, Enum)) or is_pydantic_dataclass(kind)


def _none_last(union: str) -> str:
    return " | ".join(sorted(dict.fromkeys(union.split(" | ")), key="None".__eq__))


def _name(schema: Mapping[str, Any]) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def _import_order(name: str) -> tuple[int, str]:
    """isort's: constants, classes, functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def _path(path: str) -> str:
    """`/tasks/{task_id}` as an f-string that quotes its parts."""
    if "{" not in path:
        return json.dumps(path)
    return f'f"{path.replace("{", "{path_part(").replace("}", ")}")}"'


def _docstring(operation: Mapping[str, Any]) -> str:
    text = " ".join(operation.get("description", operation["summary"]).split())
    lines = textwrap.wrap(text, _WIDTH)
    return f'"""{lines[0]}"""' if len(lines) == 1 else '"""' + "\n".join(lines) + '\n"""'


def _formatted(source: str) -> str:
    """As everything here is formatted, unused imports left out."""
    ruff = [sys.executable, "-m", "ruff"]
    for step in (["check", "--fix-only", "--quiet", "--select", "F401,I", "-"], ["format", "-"]):
        named = [*step[:-1], "--stdin-filename", str(TARGET), "-"]
        source = subprocess.run(  # noqa: S603 - our own linter on our own text
            [*ruff, *named], input=source, capture_output=True, text=True, check=True
        ).stdout
    return source


def current_document() -> Mapping[str, Any]:
    """The OpenAPI document of the application as it is now. Its database is named, but never opened."""
    with TemporaryDirectory() as folder:
        return create_app(Settings(database_url=f"sqlite:///{folder}/unused.db")).openapi()


if __name__ == "__main__":
    TARGET.write_text(operations_source(current_document()), encoding="utf-8")
