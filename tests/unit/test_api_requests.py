"""Request bodies to values, and which rule a bad one breaks."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyglot_persistence.api.orders.requests import parse_bulk, parse_import_line, parse_order
from polyglot_persistence.api.web.problems import VIOLATIONS_MAX
from polyglot_persistence.domain.order import AMOUNT_MAX
from polyglot_persistence.errors import InvalidError, MalformedError
from polyglot_persistence.flows.intake.accept import ImportLine

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
ID = UUID("0199f0c1-7a42-7c31-9d0e-3f5b8c2a1e04")


def _pointers(error: InvalidError) -> list[str]:
    return [violation.pointer for violation in error.violations]


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        (b"1299.99", "1299.99"),
        (b'"12.30"', "12.30"),
        (b"0", "0.00"),
        (b"-0", "0.00"),
        (b"-0.0", "0.00"),
        (b"12", "12.00"),
        (b"12.5", "12.50"),
        (b"12.500", "12.50"),
        (b"1e3", "1000.00"),
        (b"1.25E1", "12.50"),
        (b"1e-2", "0.01"),
        (b"9999999999.99", "9999999999.99"),
        (b'"9999999999.99"', "9999999999.99"),
        (b"0.07", "0.07"),
        (b"4503599627370.49", None),
    ],
)
def test_an_amount_is_taken_exactly(amount: bytes, expected: str | None) -> None:
    """Numbers and strings keep every digit, and come out with two decimals."""
    body = b'{"product_name": "Tea", "amount": %b}' % amount
    if expected is None:
        with pytest.raises(InvalidError):
            parse_order(body)
    else:
        assert ("Tea", expected) == (parse_order(body)[0], str(parse_order(body)[1]))


@pytest.mark.parametrize(
    "amount",
    [
        b"-0.01",
        b"12.345",
        b"0.001",
        b"10000000000",
        b"1e400",
        b"1e-400",
        b"1e99999999999999999999",
        b"-1e99999999999999999999",
        b"1" + b"0" * 5_000,
        b"0." + b"0" * 5_000 + b"1",
        b'"NaN"',
        b'"Infinity"',
        b'"sNaN"',
        b'"1_000"',
        b'"0x10"',
        b'" 1"',
        b'"1,5"',
        b'"+1"',
        b'""',
        '"١٢"'.encode(),
        b"true",
        b"false",
        b"null",
        b"[]",
        b"[1]",
        b"{}",
    ],
)
def test_another_amount_breaks_a_rule(amount: bytes) -> None:
    """What is no exact amount in the permitted range names the field."""
    with pytest.raises(InvalidError) as caught:
        parse_order(b'{"product_name": "Tea", "amount": %b}' % amount)
    assert _pointers(caught.value) == ["/amount"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ('"Tea"', "Tea"),
        ('"  Tea \\t"', "Tea"),
        ('"\\u00e4\\ud83c\\udf75"', "ä🍵"),
        ('"' + "x" * 200 + '"', "x" * 200),
        ('"' + " " * 300 + "x" * 200 + '"', "x" * 200),
        ('"' + "🍵" * 200 + '"', "🍵" * 200),
        ('"ERROR"', "ERROR"),
        ('"<script>"', "<script>"),
        ('"12"', "12"),
    ],
)
def test_a_product_name_is_trimmed_and_kept(name: str, expected: str) -> None:
    """Any text of 1 to 200 characters after trimming is a name."""
    assert (expected, Decimal(1)) == parse_order(
        f'{{"product_name": {name}, "amount": 1}}'.encode()
    )


@pytest.mark.parametrize(
    "name",
    [
        '""',
        '"  "',
        '"' + "x" * 201 + '"',
        '"a\\u0000b"',
        '"a\\nb"',
        '"a\\u007fb"',
        '"a\\u0085b"',
        '"a\\u2028b"',
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '"a\\ud83cb"',
        "12",
        "12.5",
        "1e5",
        "true",
        "null",
        "[]",
        '["Tea"]',
        "{}",
    ],
)
def test_another_product_name_breaks_a_rule(name: str) -> None:
    """What is no permitted text names the field, an escaped lone surrogate included."""
    with pytest.raises(InvalidError) as caught:
        parse_order(f'{{"product_name": {name}, "amount": 1}}'.encode())
    assert _pointers(caught.value) == ["/product_name"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"product_name": "Tea", "amount": 1',
        b'{"product_name": "Tea", "amount": 1} x',
        b'{"product_name": "Tea", "amount": 1}{}',
        b"{'product_name': 'Tea', 'amount': 1}",
        b'{"product_name": "Tea", "amount": NaN}',
        b'{"product_name": "Tea", "amount": Infinity}',
        b'{"product_name": "Tea", "amount": -Infinity}',
        b'{"product_name": "Tea", "amount": 01}',
        b'{"product_name": "Tea", "amount": 1.}',
        b'{"product_name": "Tea", "amount": .5}',
        b'{"product_name": "Tea", "amount": +1}',
        b'{"product_name": "Tea", "amount": 1,}',
        b'{"product_name": "T\x00a", "amount": 1}',
        b'{"product_name": "T\xffa", "amount": 1}',
        b'{"product_name": "\xed\xa0\x80", "amount": 1}',
        b'\xef\xbb\xbf\xef\xbb\xbf{"product_name": "Tea", "amount": 1}',
        b"\xef\xbb\xbf",
        '{"product_name": "Tea", "amount": 1}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"product_name": ' * 100_000,
        b"product_name=Tea&amount=1",
    ],
)
def test_what_is_no_json_is_malformed(body: bytes) -> None:
    """A body that JSON's grammar does not allow is another error than a broken rule."""
    with pytest.raises(MalformedError):
        parse_order(body)


def test_a_byte_order_mark_is_skipped() -> None:
    """Before an order, a bulk and a line, and not where it is part of a text."""
    order = b'{"product_name": "Tea\xef\xbb\xbf s", "amount": 1.10}'
    expected = ("Tea\ufeff s", Decimal("1.10"))
    assert expected == parse_order(b"\xef\xbb\xbf" + order)
    assert [expected] == parse_bulk(b'\xef\xbb\xbf\r\n{"orders": [%b]}' % order)
    assert ImportLine(expected) == parse_import_line(b"\xef\xbb\xbf" + order, NOW)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('{"product_name": "Tea", "amount": 1}'.encode("utf-16"), "text in UTF-16"),
        ('{"product_name": "Tea", "amount": 1}'.encode("utf-16-be"), "text in UTF-16"),
        ('{"product_name": "Tea", "amount": 1}'.encode("utf-32-le"), "text in UTF-32"),
        (b"\x1f\x8b\x08\x00", "a gzip file"),
        (b"{\r\n}\r\n}", "there is more text after the value (line 3, column 1)"),
        (b"{\r}\r\r x", "there is more text after the value (line 4, column 2)"),
        (b'\xef\xbb\xbf{\n"a" 1}', "a colon is missing (line 2, column 5)"),
        (b'{"a": 1 "b": 2}', "a comma or a closing bracket is missing (line 1, column 9)"),
        (b'{"a": "\\x"}', "a string contains an invalid escape"),
        (b'{"a": "x', "a string is not closed"),
        (b'{"a": "\n"}', "a string contains a control character"),
        (b"hello", "a value is missing (line 1, column 1)"),
        (b'\xef\xbb\xbf{"a": "\xe9"}', "not UTF-8 (byte 10)"),
    ],
)
def test_what_is_wrong_with_a_body_is_said_in_our_words(body: bytes, reason: str) -> None:
    """What it is, or what is wrong, and in which line of an editor."""
    with pytest.raises(MalformedError) as caught:
        parse_order(body)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        (b"[]", [""]),
        (b"null", [""]),
        (b'"Tea"', [""]),
        (b"12", [""]),
        (b"{}", ["/product_name", "/amount"]),
        (b'{"amount": 1}', ["/product_name"]),
        (b'{"product_name": "Tea"}', ["/amount"]),
        (b'{"product_name": "Tea", "amount": 1, "id": "x"}', ["/id"]),
        (b'{"product_name": "Tea", "amount": 1, "a/b~c": 2}', ["/a~1b~0c"]),
        (b'{"product_name": "Tea", "amount": 1, "\\ud800": 2}', ["/\\ud800"]),
        (b'{"Product_Name": "Tea", "amount": 1}', ["/Product_Name", "/product_name"]),
        (b'{"product_name": "", "amount": -1, "x": 1}', ["/x", "/product_name", "/amount"]),
    ],
)
def test_every_broken_rule_is_named(body: bytes, pointers: list[str]) -> None:
    """All broken rules of a body are reported together, each with its pointer."""
    with pytest.raises(InvalidError) as caught:
        parse_order(body)
    assert pointers == _pointers(caught.value)


@given(st.decimals(0, AMOUNT_MAX, places=2, allow_nan=False, allow_infinity=False), st.booleans())
def test_every_amount_survives(amount: Decimal, quoted: bool) -> None:
    """No amount to the cent is changed by the way it is written."""
    text = f'"{amount:f}"' if quoted else f"{amount:f}"
    assert abs(amount) == parse_order(f'{{"product_name":"x","amount":{text}}}'.encode())[1]


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_any_json_is_an_order_or_an_error(value: object) -> None:
    """Nothing that JSON can say makes the parser fail in another way, or keep it otherwise."""
    body = json.dumps({"product_name": value, "amount": value}).encode()
    try:
        name, amount = parse_order(body)
    except (InvalidError, MalformedError):
        return
    # A text such as "7" is both a name and an amount.
    assert isinstance(value, str)
    assert (value.strip(), Decimal(value)) == (name, amount)


def test_a_bulk_keeps_its_order() -> None:
    """The orders of a bulk come out in the order of the request."""
    body = json.dumps({"orders": [{"product_name": f"p{n}", "amount": n} for n in range(1_000)]})
    assert [(f"p{n}", Decimal(n)) for n in range(1_000)] == parse_bulk(body.encode())


def test_the_pair_form_is_a_bulk_of_two() -> None:
    """`item_1` and `item_2` cost 100.00 and 50.00."""
    assert [("Laptop", Decimal("100.00")), ("Mouse", Decimal("50.00"))] == parse_bulk(
        b'{"item_1": "Laptop", "item_2": " Mouse "}'
    )


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        (b"{}", ["/orders"]),
        (b"[]", [""]),
        (b'{"orders": []}', ["/orders"]),
        (b'{"orders": null}', ["/orders"]),
        (b'{"orders": {}}', ["/orders"]),
        (b'{"orders": [1]}', ["/orders/0"]),
        (b'{"orders": [{"product_name": "a", "amount": 1}], "x": 1}', ["/x"]),
        (
            b'{"orders": [{"product_name": "a", "amount": 1}, {"product_name": "", "amount": -1}]}',
            ["/orders/1/product_name", "/orders/1/amount"],
        ),
        (b'{"item_1": "Laptop"}', ["/item_2"]),
        (b'{"item_2": "Mouse"}', ["/item_1"]),
        (b'{"item_1": "Laptop", "item_2": "ERROR"}', ["/item_2"]),
        (b'{"item_1": "", "item_2": 3}', ["/item_1", "/item_2"]),
        (b'{"item_1": "a", "item_2": "b", "item_3": "c"}', ["/item_3"]),
        (b'{"orders": [{"product_name": "a", "amount": 1}], "item_1": "a"}', ["/item_1"]),
    ],
)
def test_a_bulk_names_the_place_of_every_broken_rule(body: bytes, pointers: list[str]) -> None:
    """One invalid order refuses the bulk and is named by its place."""
    with pytest.raises(InvalidError) as caught:
        parse_bulk(body)
    assert pointers == _pointers(caught.value)


def test_a_bulk_over_the_limit_is_refused() -> None:
    """1,001 orders break one rule, not a thousand."""
    body = json.dumps({"orders": [{"product_name": "p", "amount": 1}] * 1_001}).encode()
    with pytest.raises(InvalidError) as caught:
        parse_bulk(body)
    assert _pointers(caught.value) == ["/orders"]


def test_broken_rules_are_counted_up_to_a_bound() -> None:
    """A body that breaks a thousand rules does not make an answer of a thousand lines."""
    with pytest.raises(InvalidError) as caught:
        parse_bulk(json.dumps({"orders": [{}] * 1_000}).encode())
    assert len(caught.value.violations) == VIOLATIONS_MAX + 1


def test_an_import_line_may_bring_id_and_time() -> None:
    """What a line brings is taken as it is, its time as UTC."""
    text = (
        b'{"id": "%b", "product_name": "Tea", "amount": 1.5, '
        b'"created_at": "2017-06-01T02:00:00.123456+02:00"}' % str(ID).encode()
    )
    expected = ImportLine(
        ("Tea", Decimal("1.50")), ID, datetime(2017, 6, 1, 0, 0, 0, 123456, tzinfo=UTC)
    )
    parsed = parse_import_line(text, NOW)
    assert expected == parsed
    assert parsed.created_at is not None
    assert timedelta(0) == parsed.created_at.utcoffset()


@pytest.mark.parametrize(
    "text",
    [
        b'{"product_name": "Tea", "amount": 1}',
        b'{"product_name": "Tea", "amount": 1, "id": null, "created_at": null}',
        # Not for the typed decoder: the escaped surrogate pair is fine, the long number is too.
        b'{"product_name": "Tea", "amount": 1.' + b"0" * 40 + b"}",
    ],
)
def test_an_import_line_needs_neither(text: bytes) -> None:
    """Without them, or with null, the line is an order like any other."""
    assert ImportLine(("Tea", Decimal("1.00"))) == parse_import_line(text, NOW)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", '"x"'),
        ("id", "1"),
        ("id", '""'),
        ("id", '"{0199f0c1-7a42-7c31-9d0e-3f5b8c2a1e04}"'),
        ("id", "[]"),
        ("created_at", '"yesterday"'),
        ("created_at", '"2017-06-01"'),
        ("created_at", '"2017-06-01T00:00:00"'),
        ("created_at", "1500000000"),
        ("created_at", "true"),
        ("created_at", '"1969-12-31T23:59:59Z"'),
        ("created_at", '"0001-01-01T00:00:00+14:00"'),
        ("created_at", '"9999-12-31T23:59:59-14:00"'),
        ("created_at", '"2026-02-01T12:00:01Z"'),
        ("created_at", '"2026-13-01T12:00:00Z"'),
    ],
)
def test_an_import_line_names_a_bad_id_or_time(field: str, value: str) -> None:
    """Ids are UUIDs; times have a zone and lie between 1970 and a day from now."""
    text = f'{{"product_name": "Tea", "amount": 1, "{field}": {value}}}'.encode()
    with pytest.raises(InvalidError) as caught:
        parse_import_line(text, NOW)
    assert [f"/{field}"] == _pointers(caught.value)


@pytest.mark.parametrize("text", ["1970-01-01T00:00:00Z", "2026-02-01T12:00:00Z"])
def test_the_first_and_last_moment_are_permitted(text: str) -> None:
    """1970 begins at its beginning, and tomorrow at this time is not too late."""
    line = f'{{"product_name": "Tea", "amount": 1, "created_at": "{text}"}}'.encode()
    assert datetime.fromisoformat(text) == parse_import_line(line, NOW).created_at


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2016-12-31t23:59:60.25z", "2017-01-01T00:00:00.25Z"),
        ("2017-01-01T01:59:60+02:00", "2017-01-01T00:00:00Z"),
        ("1998-12-31 23:59:60-00:00", "1999-01-01T00:00:00Z"),
        ("2012-06-30T16:29:60-07:30", "2012-07-01T00:00:00Z"),
    ],
)
def test_a_leap_second_is_the_second_after_it(text: str, moment: str) -> None:
    """As on every clock that counts none; sent again it is the same moment."""
    line = f'{{"product_name": "Tea", "amount": 1, "created_at": "{text}"}}'.encode()
    assert datetime.fromisoformat(moment) == parse_import_line(line, NOW).created_at


@pytest.mark.parametrize(
    "text",
    [
        "2016-12-31T23:58:60Z",
        "2016-12-31T12:59:60Z",
        "2016-12-30T23:59:60Z",
        "2016-12-31T23:59:60+01:00",
        "2016-12-31T23:59:61Z",
        "2016-12-31T23:59:60",
        "1969-12-31T23:59:60Z",
        "9999-12-31T23:59:60Z",
        "2026-02-01T12:00:60Z",
    ],
)
def test_another_second_60_is_refused(text: str) -> None:
    """No minute but the last of a UTC month can have one."""
    line = f'{{"product_name": "Tea", "amount": 1, "created_at": "{text}"}}'.encode()
    with pytest.raises(InvalidError) as caught:
        parse_import_line(line, NOW)
    assert _pointers(caught.value) == ["/created_at"]
