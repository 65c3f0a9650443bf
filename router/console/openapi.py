"""The OpenAPI 3.1 document of the table of addresses, made from the structs that are encoded and decoded there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from router.console.routes import Parameter, Route
from router.problem import Error

_NAMES = re.compile(r"\{(\w+)\}")
_REFERENCE = "#/components/schemas/{name}"


def document(routes: Sequence[Route]) -> dict[str, Any]:
    types = [each for route in routes for each in (route.answer, route.body) if each is not None]
    unique = list(dict.fromkeys([*types, Error]))
    schemas, components = msgspec.json.schema_components(unique, ref_template=_REFERENCE)
    by_type: dict[object, Any] = dict(zip(unique, schemas, strict=True))
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_type)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Turnout console", "version": "1"},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _operation(route: Route, schemas: Mapping[object, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.words,
        "responses": {
            "200": {"description": "Done.", "content": _content(route, schemas)},
            **(
                {str(route.also): {"description": "Not so.", "content": _content(route, schemas)}} if route.also else {}
            ),
            "default": {
                "description": "Not done.",
                "content": {"application/json": {"schema": schemas[Error]}},
            },
        },
    }
    parameters = [_in_path(name) for name in _NAMES.findall(route.path)] + [_in_query(each) for each in route.query]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        needed = any(field.required for field in msgspec.structs.fields(route.body))
        content = {"application/json": {"schema": schemas[route.body]}}
        operation["requestBody"] = {"content": content, "required": needed}
    if route.open:
        operation["security"] = []
    return operation


def _content(route: Route, schemas: Mapping[object, Any]) -> dict[str, Any]:
    if route.answer is None:
        return {"text/plain": {"schema": {"type": "string"}}}
    return {route.media: {"schema": schemas[route.answer]}}


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _in_query(parameter: Parameter) -> dict[str, Any]:
    return {"name": parameter.name, "in": "query", "description": parameter.words, "schema": dict(parameter.schema)}
