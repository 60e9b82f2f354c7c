"""Parses request headers: content type, idempotency key, preference to wait.

Invariant: an invalid `Prefer` is ignored, as RFC 7240 (section 2) demands; an invalid
`Idempotency-Key` is refused, because ignoring it could store an order twice.
"""

import re
from typing import NamedTuple

from polyglot_persistence.errors import MalformedError, UnsupportedMediaError

KEY_CHARACTERS_MAX = 255
"""Longest idempotency key, as the draft of the IETF's httpapi group advises."""

NDJSON_TYPES = (
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
    "application/json-lines",
    "application/x-json-lines",
    "application/ldjson",
    "application/x-ldjson",
    "application/stream+json",
    "application/x-json-stream",
)
"""None is registered; these are in use. `text/plain` is not among them, for a page of any origin
may send it unasked; nor is `application/json-seq`, which separates otherwise (RFC 7464)."""

_QUOTED_KEY = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BARE_KEY = re.compile(r"[\x21\x23-\x7e][\x21-\x7e]*")
_ESCAPED = re.compile(r"\\(.)")
_WAIT_DIGITS_MAX = 9


class Preference(NamedTuple):
    """The client's preference about waiting."""

    wait_seconds: int | None
    respond_async: bool


def check_json(content_type: str | None) -> None:
    """Accept `application/json`, in UTF-8 if it names a charset.

    Raises:
        UnsupportedMediaError: it is anything else, or missing.
    """
    if content_type == "application/json":
        return
    _check_type(content_type, ("application/json",))


def check_ndjson(content_type: str | None) -> None:
    """Accept the names under which newline-delimited JSON goes.

    Raises:
        UnsupportedMediaError: it is anything else, or missing.
    """
    _check_type(content_type, NDJSON_TYPES)


def _check_type(content_type: str | None, accepted: tuple[str, ...]) -> None:
    media_type, _, parameters = (content_type or "").partition(";")
    if media_type.strip().lower() not in accepted:
        got = f"not {media_type.strip()!r}" if content_type else "and there is no content type"
        raise UnsupportedMediaError(f"the body must be {accepted[0]}, {got}")
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in (
            "utf-8",
            "utf8",
        ):
            raise UnsupportedMediaError(f"the charset must be UTF-8, not {value.strip()!r}")


def parse_idempotency_key(values: list[str]) -> str | None:
    """Return the key of the `Idempotency-Key` headers, if there is one.

    A Structured-Field String (RFC 9651, in quotes) is the standard's form; the same text bare is
    the same key.

    Raises:
        MalformedError: more than one, empty, too long, or with other than printable ASCII.
    """
    if not values:
        return None
    if len(values) > 1:
        raise MalformedError("Idempotency-Key must be given once")
    text = values[0].strip()
    if quoted := _QUOTED_KEY.fullmatch(text):
        key = _ESCAPED.sub(r"\1", quoted[1])
    elif _BARE_KEY.fullmatch(text):
        key = text
    else:
        raise MalformedError(
            "Idempotency-Key must be a string of printable ASCII, in quotes if it contains spaces"
        )
    if not 1 <= len(key) <= KEY_CHARACTERS_MAX:
        raise MalformedError(
            f"Idempotency-Key must have 1 to {KEY_CHARACTERS_MAX} characters, not {len(key)}"
        )
    return key


def parse_prefer(values: list[str]) -> Preference:
    """Return the preference in the `Prefer` headers (RFC 7240); the first of each counts."""
    wait_seconds: int | None = None
    respond_async = False
    for preference in ",".join(values).split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        name, value = name.strip().lower(), value.strip().strip('"')
        if name == "respond-async":
            respond_async = True
        elif (
            name == "wait"
            and wait_seconds is None
            and value.isascii()
            and value.isdigit()
            and len(value) <= _WAIT_DIGITS_MAX
        ):
            wait_seconds = int(value)
    return Preference(wait_seconds, respond_async)
