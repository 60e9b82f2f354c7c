"""What a request's headers ask for."""

import pytest

from polyglot_persistence.api.web.request_headers import (
    Preference,
    check_json,
    check_ndjson,
    parse_idempotency_key,
    parse_prefer,
)
from polyglot_persistence.errors import MalformedError, UnsupportedMediaError


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/json; profile=x",
    ],
)
def test_json_is_taken(content_type: str) -> None:
    """The type in any case, with UTF-8 or no charset."""
    check_json(content_type)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "application/json; charset=latin-1",
        "application/x-ndjson",
    ],
)
def test_anything_else_is_not_json(content_type: str | None) -> None:
    """Also no content type at all: a browser's form must not place orders."""
    with pytest.raises(UnsupportedMediaError):
        check_json(content_type)


def test_ndjson_goes_under_several_names() -> None:
    """There is no registered name."""
    for name in ("application/x-ndjson", "application/ndjson", "application/jsonl; charset=utf-8"):
        check_ndjson(name)
    with pytest.raises(UnsupportedMediaError):
        check_ndjson("application/json")


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ([], None),
        (['"abc"'], "abc"),
        (["abc"], "abc"),
        ([" abc "], "abc"),
        (['"a b"'], "a b"),
        ([r'"a\"b\\c"'], r"a\"b\c".replace('\\"', '"')),
        (["8e03978e-40d5-43dd-bc93-6894a57f9324"], "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (["x" * 255], "x" * 255),
        (['"' + "x" * 255 + '"'], "x" * 255),
    ],
)
def test_an_idempotency_key_is_a_string_in_quotes_or_bare(
    values: list[str], key: str | None
) -> None:
    """Both forms of the same text are the same key."""
    assert key == parse_idempotency_key(values)


@pytest.mark.parametrize(
    "values",
    [
        [""],
        ['""'],
        ["a b"],
        ['"abc'],
        ['abc"' + "\x00"],
        ['"a"b"'],
        [r'"a\n"'],
        ["ä"],
        ["x" * 256],
        ['"' + "x" * 256 + '"'],
        ["a", "a"],
    ],
)
def test_another_idempotency_key_is_refused(values: list[str]) -> None:
    """Ignoring a key that cannot be read could store an order twice."""
    with pytest.raises(MalformedError):
        parse_idempotency_key(values)


@pytest.mark.parametrize(
    ("values", "wait_seconds", "respond_async"),
    [
        ([], None, False),
        (["wait=10"], 10, False),
        (["wait=0"], 0, False),
        (['Wait="10"'], 10, False),
        (["respond-async, wait=10"], 10, True),
        (["respond-async", "wait=10; x=y"], 10, True),
        (["wait=10, wait=20"], 10, False),
        (["wait=-1"], None, False),
        (["wait=1.5"], None, False),
        (["wait=soon"], None, False),
        (["wait"], None, False),
        (["wait=²"], None, False),
        (["wait=" + "9" * 5_000], None, False),
        (["return=minimal; wait=3"], None, False),
    ],
)
def test_a_preference_that_cannot_be_read_is_ignored(
    values: list[str], wait_seconds: int | None, respond_async: bool
) -> None:
    """RFC 7240 makes every preference optional."""
    assert Preference(wait_seconds, respond_async) == parse_prefer(values)
