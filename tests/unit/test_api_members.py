"""Objects that have a member twice, and strings that look as if they had."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyglot_persistence.api.orders.requests import parse_bulk, parse_import_line, parse_order
from polyglot_persistence.errors import InvalidError

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
ID = UUID("0199f0c1-7a42-7c31-9d0e-3f5b8c2a1e04")


def _pointers(error: InvalidError) -> list[str]:
    return [violation.pointer for violation in error.violations]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        (b'{"product_name":"Tea","amount":1,"amount":2}', ["/amount"]),
        (b'{"amount" :1, "product_name":"Tea","amount"\t:1}', ["/amount"]),
        (b'{"product_name":"Tea","product_name":"Tea","amount":1}', ["/product_name"]),
        (b'{"product_name":"Tea","amount":1,"\\u0061mount":2}', ["/amount"]),
        (b'{"product_name":"a:b","amount":"x","amount":"1"}', ["/amount"]),
        (b'{"product_name":"Tea","amount":-1,"amount":1}', ["/amount"]),
        (
            b'{"product_name":"","product_name":"Tea","amount":1,"amount":1}',
            ["/product_name", "/amount"],
        ),
    ],
)
def test_a_member_is_given_once(body: bytes, pointers: list[str]) -> None:
    """Of two values each reader would choose its own (RFC 8259, 4; I-JSON forbids it)."""
    with pytest.raises(InvalidError, match="is given twice") as order:
        parse_order(body)
    assert _pointers(order.value) == pointers
    with pytest.raises(InvalidError, match="is given twice") as line:
        parse_import_line(body, NOW)
    assert _pointers(line.value) == pointers
    with pytest.raises(InvalidError, match="is given twice") as bulk:
        parse_bulk(b'{"orders":[{"product_name":"Rug","amount":1},%b]}' % body)
    assert _pointers(bulk.value) == [f"/orders/1{pointer}" for pointer in pointers]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"orders":[{"product_name":"a","amount":1}],"orders":[]}', "/orders"),
        (b'{"orders":[],"orders":[{"product_name":"a","amount":1}]}', "/orders"),
        (b'{"item_1":"a","item_1":"b","item_2":"c"}', "/item_1"),
    ],
)
def test_a_bulk_has_its_members_once(body: bytes, pointer: str) -> None:
    """In both of its forms."""
    with pytest.raises(InvalidError, match="is given twice") as caught:
        parse_bulk(body)
    assert pointer in _pointers(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        b'{"id":null,"id":"0199f0c1-7a42-7c31-9d0e-3f5b8c2a1e04","product_name":"a","amount":1}',
        b'{"product_name":"a","amount":1,"created_at":"\\u0032026-01-31T11:00:00Z",%b}'
        % b'"created_at":"2026-01-31T11\\u003a00\\u003a00Z"',
        b'{"created_at":null,"created_at":null,"product_name":"a","amount":1}',
    ],
)
def test_a_line_has_its_members_once(line: bytes) -> None:
    """Also if one of them says nothing, or is written in escapes."""
    with pytest.raises(InvalidError, match="is given twice"):
        parse_import_line(line, NOW)


@pytest.mark.parametrize(
    "name",
    ["a:b", 'say ":" twice', '":"', 'x": {"amount', '\\":', "amount", '","amount":1,"', "::::"],
)
def test_a_name_may_look_like_members(name: str) -> None:
    """What stands in a string is text."""
    order = {"product_name": name, "amount": "1.00"}
    body = json.dumps(order).encode()
    assert parse_order(body) == (name, Decimal("1.00"))
    assert parse_bulk(b'{"orders": [%b, %b]}' % (body, body)) == [(name, Decimal("1.00"))] * 2
    given = {**order, "id": str(ID), "created_at": "2026-01-31T12:00:00+01:00"}
    assert parse_import_line(json.dumps(given).encode(), NOW).content[0] == name


@given(st.lists(st.sampled_from(["product_name", "amount"]), min_size=2, max_size=4), st.text())
def test_both_are_needed_once_and_nothing_else_is(names: list[str], text: str) -> None:
    """Whatever the order, the spaces and the text."""
    values = {"product_name": json.dumps(f"x{text}"), "amount": '"1"'}
    body = ("{" + ",".join(f'"{name}" : {values[name]}' for name in names) + "}").encode()
    try:
        parse_order(body)
    except InvalidError as error:
        texts = str(error)
        assert "twice" in texts or "missing" in texts or "product_name" in texts
        if sorted(names) == ["amount", "product_name"]:
            assert "twice" not in texts
    else:
        assert sorted(names) == ["amount", "product_name"]
