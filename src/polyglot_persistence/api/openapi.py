"""The OpenAPI 3.1 description, made from the table of routes and the types that it names.

Invariant: the description has exactly the routes of the table.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from polyglot_persistence.api.routes import Route
from polyglot_persistence.api.web.descriptions import HEADERS, Answer, Body, Operation, Parameter
from polyglot_persistence.api.web.problems import (
    FORBIDDEN,
    HEAD_TOO_LARGE,
    INTERNAL,
    KINDS,
    MALFORMED,
    MISDIRECTED,
    TOO_MANY_REQUESTS,
    UNAUTHENTICATED,
    UNAVAILABLE,
    Kind,
)
from polyglot_persistence.api.web.queries import QueryParameter
from polyglot_persistence.domain.access import Scope

_PROBLEM_JSON = "application/problem+json"

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same API key, in a header of its own.",
    },
}


def describe(table: Sequence[Route], version: str) -> dict[str, Any]:
    """Return the description of all routes."""
    types = _types(table)
    made, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    schemas = dict(zip(types, made, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    description = {
        "openapi": "3.1.0",
        "info": {
            "title": "polyglot-persistence",
            "version": version,
            "summary": "Orders, acknowledged in milliseconds, persisted behind, never lost.",
            "description": "An acknowledged order is durable. 503 means refused, nothing stored; "
            "504 means unknown: retry with the same `Idempotency-Key`.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "tags": [
            {"name": "orders", "description": "Accept and read orders."},
            {"name": "reports", "description": "Search and live figures."},
            {"name": "sales", "description": "Sales by period and by product."},
            {"name": "admin", "description": "Routes for operators."},
            {"name": "service", "description": "Health, metrics and descriptions."},
        ],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SCHEMES},
    }
    widened: dict[str, Any] = _with_formats(description)
    return widened


_FORMATS = {"integer": "int64", "number": "double"}


def _with_formats(node: Any) -> Any:
    """Return a part of the description with the format of every number.

    Decimals become numbers, as `encode_json` writes them; msgspec describes them as strings.

    Client generators map a number without a format to a small type: in Go to `int32` and
    `float32`, which loses cents from 131,072.00 on. A double represents every amount, and every sum
    below 90 trillion, to the cent.
    """
    if isinstance(node, list):
        return [_with_formats(one) for one in node]
    if not isinstance(node, dict):
        return node
    if node.get("format") == "decimal":
        node = {**node, "type": "number", "format": "double"}
    kind = node.get("type")
    known = {"format": _FORMATS[kind]} if isinstance(kind, str) and kind in _FORMATS else {}
    return {**known, **{key: _with_formats(value) for key, value in node.items()}}


_Schemas: TypeAlias = Mapping[Any, dict[str, Any]]
"""The schema of each type that the descriptions name: a reference, if the type has a name."""


def _types(table: Sequence[Route]) -> list[Any]:
    named = [
        described
        for route in table
        for described in (route.about.answer, *route.about.others, route.about.request)
        if described is not None
    ]
    types = [one.type for one in named] + [route.about.problem_type for route in table]
    each = (one for type_ in types for one in (type_ if isinstance(type_, tuple) else (type_,)))
    return list(dict.fromkeys(one for one in each if one is not None))


def _operation(route: Route, schemas: _Schemas) -> dict[str, Any]:
    about = route.about
    operation: dict[str, Any] = {
        "operationId": about.name,
        "tags": [about.tag],
        "summary": about.summary,
        "description": about.description,
        "responses": _responses(route, schemas),
        "security": _security(route.scope),
    }
    if about.parameters:
        operation["parameters"] = [_parameter(parameter) for parameter in about.parameters]
    if about.request is not None:
        operation["requestBody"] = {"required": True, "content": _content(about.request, schemas)}
    return operation


def _security(scope: Scope) -> list[dict[str, list[str]]]:
    """Return the accepted credentials: a key with this scope or, if operators allow it, none."""
    if scope is Scope.PUBLIC:
        return []
    return [*({scheme: [scope.value]} for scheme in _SCHEMES), {}]


def _parameter(parameter: Parameter | QueryParameter[Any]) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.description,
        "required": parameter.required,
        "schema": parameter.schema,
    }


def _content(described: Answer | Body, schemas: _Schemas) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": _schema(described.type, schemas)}
    if described.example is not None:
        content["example"] = described.example
    return {described.media_type: content}


def _schema(type_: Any, schemas: _Schemas) -> dict[str, Any]:
    if isinstance(type_, tuple):
        return {"anyOf": [schemas[one] for one in type_]}
    return {"type": "string"} if type_ is None else schemas[type_]


def _responses(route: Route, schemas: _Schemas) -> dict[str, Any]:
    about = route.about
    answers = sorted((about.answer, *about.others), key=lambda answer: answer.status)
    responses = {str(answer.status): _answer(answer, schemas) for answer in answers}
    kinds = {*about.problems, HEAD_TOO_LARGE, INTERNAL, MISDIRECTED}
    if route.scope is not Scope.PUBLIC:
        kinds |= {MALFORMED, UNAUTHENTICATED, FORBIDDEN, TOO_MANY_REQUESTS}
    for status in sorted({kind.status for kind in kinds}):
        of_status = [kind for kind in KINDS if kind in kinds and kind.status == status]
        responses[str(status)] = _problem(of_status, about, schemas)
    return responses


def _answer(answer: Answer, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    if answer.headers:
        described["headers"] = {name: _header(name) for name in answer.headers}
    if answer.media_type:
        described["content"] = _content(answer, schemas)
    if answer.also:
        described["content"][answer.also] = {"schema": {"type": "string"}}
    return described


def _problem(kinds: Sequence[Kind], about: Operation, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": " ".join(
            re.sub(r"\.?$", ".", f"{kind.title}: {kind.meaning}", count=1) for kind in kinds
        ),
        "content": {_PROBLEM_JSON: {"schema": schemas[about.problem_type]}},
    }
    names = [name for kind in kinds for name in _HEADERS_OF.get(kind, ())]
    if names:
        described["headers"] = {name: _header(name) for name in names}
    return described


_HEADERS_OF = {
    UNAVAILABLE: ("Retry-After",),
    TOO_MANY_REQUESTS: ("Retry-After", "RateLimit-Policy", "RateLimit"),
    UNAUTHENTICATED: ("WWW-Authenticate",),
}


def _header(name: str) -> dict[str, Any]:
    description, schema = HEADERS[name]
    return {"description": description, "schema": schema}
