"""The published description: valid, complete, and true to its own examples."""

from typing import Any

import msgspec
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from polyglot_persistence.api.openapi import describe
from polyglot_persistence.api.orders.replies import accepted_reply
from polyglot_persistence.api.orders.schemas import AcceptedOut
from polyglot_persistence.api.routes import ROUTES
from polyglot_persistence.api.web.replies import encode_json
from polyglot_persistence.domain.access import Scope
from polyglot_persistence.domain.order import new_id

DESCRIPTION: dict[str, Any] = msgspec.json.decode(encode_json(describe(ROUTES, "1.2.3")))
OPERATIONS = [
    pytest.param(operation, id=f"{method} {path}")
    for path, operations in DESCRIPTION["paths"].items()
    for method, operation in operations.items()
]


def test_a_validator_accepts_it() -> None:
    """OpenAPI 3.1, as its own schema says it."""
    validate(DESCRIPTION)


def test_it_describes_every_route() -> None:
    """Each method of each path, once, under a name of its own."""
    described = {(m.upper(), path) for path, ms in DESCRIPTION["paths"].items() for m in ms}
    assert described == {(route.method, route.path) for route in ROUTES}
    assert len({route.about.name for route in ROUTES}) == len(ROUTES)


def test_every_tag_is_described() -> None:
    """The reference has a section for each tag, and no route outside of them."""
    described = [tag["name"] for tag in DESCRIPTION["tags"]]
    assert sorted({route.about.tag for route in ROUTES}) == sorted(described)


def test_every_route_says_who_may_ask() -> None:
    """What operators do is theirs alone, and nobody changes anything unasked."""
    for route in ROUTES:
        assert isinstance(route.scope, Scope), route.path
        assert (route.scope is Scope.ADMIN) == route.path.startswith("/api/admin/"), route.path
        if route.method != "GET":
            assert route.scope in (Scope.WRITE, Scope.ADMIN), route.path


@pytest.mark.parametrize("operation", OPERATIONS)
def test_examples_obey_their_schemas(operation: dict[str, Any]) -> None:
    """What is shown is what is taken and given."""
    bodies = [operation["requestBody"]] if "requestBody" in operation else []
    for body in (*bodies, *operation["responses"].values()):
        for media_type, content in body.get("content", {}).items():
            if "example" not in content:
                continue
            example = content["example"]
            if media_type == "application/x-ndjson":
                example = msgspec.json.decode(example)
            schema = {**content["schema"], "components": DESCRIPTION["components"]}
            OAS31Validator(schema).validate(example)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_says_how_it_fails(operation: dict[str, Any]) -> None:
    """As a problem; with Retry-After where it makes sense to come again."""
    for status, answer in operation["responses"].items():
        if int(status) < 400 or (operation["operationId"] == "ready" and status == "503"):
            continue
        assert list(answer["content"]) == ["application/problem+json"]
        headers = answer.get("headers", {})
        assert ("Retry-After" in headers) == (status in ("429", "503"))
        assert ("WWW-Authenticate" in headers) == (status == "401")
    assert "500" in operation["responses"]


def test_paths_name_their_parameters() -> None:
    """Each variable of a path is described, and required."""
    for path, operations in DESCRIPTION["paths"].items():
        variables = {part[1:-1] for part in path.split("/") if part.startswith("{")}
        for operation in operations.values():
            named = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
            assert named == variables


def test_the_hot_reply_is_the_described_one() -> None:
    """The bytes that are put together by hand are what the type would encode to."""
    order_id = new_id()
    assert accepted_reply(order_id)[2] == encode_json(AcceptedOut(order_id, "processing"))
    reply = accepted_reply(order_id, "persisted")
    assert reply[2] == encode_json(AcceptedOut(order_id, "persisted"))


def test_every_number_has_the_format_that_keeps_it() -> None:
    """Generators take one without for the smallest type of their language."""
    found: dict[str, set[str]] = {"integer": set(), "number": set()}

    def look(node: Any) -> None:
        if isinstance(node, list):
            for one in node:
                look(one)
        elif isinstance(node, dict):
            kind = node.get("type")
            if isinstance(kind, str) and kind in found:
                found[kind].add(node.get("format", "none"))
            look(list(node.values()))

    look(DESCRIPTION)
    assert found == {"integer": {"int64"}, "number": {"double"}}
