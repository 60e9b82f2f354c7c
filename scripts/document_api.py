"""Write `docs/api.md`: the reference of the API, from the descriptions of its routes.

python scripts/document_api.py
"""

import json
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from polyglot_persistence import __version__
from polyglot_persistence.api.openapi import describe
from polyglot_persistence.api.routes import ROUTES
from polyglot_persistence.api.web.replies import encode_json

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
SERVER = "http://localhost:8080"
OPERATOR = '-H "X-API-Key: $(cat .data/operator.key)"'
WIDTH = 100

QUERIES = {
    "listOrders": "limit=2",
    "search": "q=labtop&max=2000",
    "suggest": "q=lap",
    "dailySales": "days=7",
    "sales": "by=day&from=2026-01-30&to=2026-02-02&tz=Europe/Berlin",
    "topProducts": "limit=3",
    "listDeadLetters": "stage=persist",
}
"""What the examples ask. The import, which comes first, brings an order of 2026-01-31."""

NOT_RUN = {
    "readDeadLetter": "there is no dead letter with this id",
    "replayDeadLetter": "there is no dead letter with this id",
    "discardDeadLetter": "there is no dead letter with this id",
}
"""What a fresh installation cannot answer."""

PATHS = {"readDeadLetter": "17", "replayDeadLetter": "17", "discardDeadLetter": "17"}
ORDER_ID = "0199f0c1-7a42-7c31-9d0e-3f5b8c2a1e04"

INTRODUCTION = f"""\
# API reference

<!-- Written by `make docs` from the descriptions of the routes. -->

Every route, with a request as it is sent to a service on this machine and the answer to it; a test
sends them all and holds the answers against the types below. Programs find the same as OpenAPI 3.1
at <{SERVER}/openapi.json>, and <{SERVER}/docs> lets you try it out.

- Bodies are JSON in UTF-8. Amounts are exact decimals with two places; moments are UTC, RFC 3339.
- Routes with the scope `admin` need an API key; in these examples it is the one that
  `polyglot up` keeps in its data directory.
- Where the service asks for API keys, send yours as `-H "Authorization: Bearer KEY"`. Each route
  names the scope that the key needs.
- Errors are problems (RFC 9457) with the statuses listed: what each means is in
  [ops.md](ops.md#errors). 503 means refused, and nothing was stored; 504 that it cannot be known,
  so repeat it with the same `Idempotency-Key`.
"""


class Documented(NamedTuple):
    """An operation of the description, and where it stands."""

    method: str
    path: str
    about: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its `operationId`."""
        return str(self.about["operationId"])

    def answers(self) -> dict[str, Any]:
        """Return its statuses that are no problem."""
        return {code: one for code, one in self.about["responses"].items() if int(code) < 400}  # noqa: PLR2004

    def content(self) -> tuple[str, Mapping[str, Any]]:
        """Return content type and description of the usual answer, the one with the last status."""
        contents: Mapping[str, Any] = list(self.answers().values())[-1].get("content", {"": {}})
        return next(iter(contents.items()))

    def is_page(self) -> bool:
        """Whether people read it, and no program."""
        return any(
            media_type in ("text/html", "*/*")
            for answer in self.answers().values()
            for media_type in answer.get("content", {})
        )

    def is_for_operators(self) -> bool:
        """Whether it needs a key in every deployment, or shows more with one."""
        scopes = [scope for way in self.about["security"] for one in way.values() for scope in one]
        return "admin" in scopes or self.name == "ready"

    def command(self) -> str:
        """Return the request as a command line; it fails if the service does not do as asked."""
        path = self.path.replace("{id}", PATHS.get(self.name, ORDER_ID))
        query = QUERIES.get(self.name, "")
        url = f"{SERVER}{path}{'?' * bool(query)}{query}"
        words = [] if self.method == "GET" else ["-X", self.method]
        words.append(shlex.quote(url))
        if self.is_for_operators():
            words.append(OPERATOR)
        if self.content()[0] == "text/event-stream":  # it has no end
            return f"curl -sfN --max-time 2 {' '.join(words)} || test $? = 28"
        if "requestBody" not in self.about:
            return f"curl -sf {' '.join(words)}"
        ((media_type, content),) = self.about["requestBody"]["content"].items()
        example = content["example"]
        body = example if isinstance(example, str) else json.dumps(example)
        return (
            f"curl -sf {' '.join(words)} -H 'Content-Type: {media_type}' \\\n"
            f"  --data-binary {shlex.quote(body.strip())}"
        )


def description() -> dict[str, Any]:
    """Return the OpenAPI description."""
    return cast("dict[str, Any]", json.loads(encode_json(describe(ROUTES, __version__))))


def operations(described: Mapping[str, Any]) -> Iterator[Documented]:
    """Yield the operations that programs use, in the order of the table of routes."""
    for path, methods in described["paths"].items():
        for method, about in methods.items():
            one = Documented(method.upper(), path, about)
            if not one.is_page():
                yield one


def page() -> str:
    """Return the whole page."""
    described = description()
    found = list(operations(described))
    parts = [INTRODUCTION]
    for tag in described["tags"]:
        parts.append(f"## {tag['name'].capitalize()}\n\n{_wrapped(tag['description'])}")
        parts += [_section(one) for one in found if one.about["tags"] == [tag["name"]]]
    parts.append("## Types\n\nA field that may be left out says its default.")
    schemas = described["components"]["schemas"]
    parts += [_type(name, schemas[name]) for name in sorted(schemas)]
    return "\n".join(f"{part.strip()}\n" for part in parts)


def _section(one: Documented) -> str:
    about = one.about
    keys = [scope for way in about["security"] for scopes in way.values() for scope in scopes]
    scope = f"Scope `{keys[0]}`." if keys else "Needs no key."
    parts = [f"### `{one.method} {one.path}`", _wrapped(f"**{about['summary']}.** {scope}")]
    parts.append(_wrapped(about["description"]))
    if "parameters" in about:
        parts.append(_table(("Parameter", "In", "May be", "Meaning"), _parameters(about)))
    if "requestBody" in about:
        ((_, content),) = about["requestBody"]["content"].items()
        parts.append(f"Body: {_kind(content['schema'])}.")
    reason = NOT_RUN.get(one.name)
    parts.append(f"```bash{f' no-test: {reason}' if reason else ''}\n{one.command()}\n```")
    _, content = one.content()
    if "example" in content:
        example = content["example"]
        if isinstance(example, str):
            shown = f"```text\n{example.strip()}\n```"
        else:
            shown = f"```json\n{json.dumps(example, indent=2, ensure_ascii=False)}\n```"
        parts += ["Answer, for example:", shown]
    parts.append(_wrapped(_statuses(one)))
    return "\n\n".join(parts)


def _parameters(about: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for one in about["parameters"]:
        name = f"`{one['name']}`{' (required)' if one['required'] else ''}"
        yield name, one["in"], _kind(one["schema"]), one["description"]


def _statuses(one: Documented) -> str:
    told = []
    for status, answer in one.answers().items():
        kinds = [
            _kind(content["schema"]) + ("" if media_type.endswith("json") else f" as {media_type}")
            for media_type, content in answer.get("content", {}).items()
        ]
        told.append(f"`{status}` {answer['description'].rstrip('.')} ({' or '.join(kinds)})")
    problems = [f"`{s}`" for s in one.about["responses"] if s not in one.answers()]
    return f"{'; '.join(told)}. Problems: {', '.join(problems)}."


def _type(name: str, schema: Mapping[str, Any]) -> str:
    rows = [
        (f"`{field}`", _kind(about), about.get("description", ""))
        for field, about in schema.get("properties", {}).items()
    ]
    meaning = _wrapped(schema.get("description", ""))
    return f"### {name}\n\n{meaning}\n\n{_table(('Field', 'May be', 'Meaning'), rows)}"


def _kind(schema: Mapping[str, Any]) -> str:
    """Return what a value may be, in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        text = " or ".join(dict.fromkeys(_kind(one) for one in schema["anyOf"]))
    elif "enum" in schema:
        text = ", ".join(f"`{value}`" for value in schema["enum"])
    elif schema.get("type") == "array":
        text = f"list of {_kind(schema.get('items', {}))}"
    elif isinstance(schema.get("additionalProperties"), dict):
        text = f"object, each value {_kind(schema['additionalProperties'])}"
    else:
        text = str(schema.get("format") or schema.get("type") or "anything")
    return text + _bounds(schema)


def _bounds(schema: Mapping[str, Any]) -> str:
    told = []
    for least, most, unit in (
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " items"),
        ("minimum", "maximum", ""),
    ):
        low, high = schema.get(least), schema.get(most)
        if low is not None and high is not None:
            told.append(f"{low:,} to {high:,}{unit}")
        elif low is not None:
            told.append(f"at least {low:,}{unit}")
        elif high is not None:
            told.append(f"at most {high:,}{unit}")
    if "default" in schema:
        told.append(f"default `{json.dumps(schema['default'])}`")
    return "".join(f", {one}" for one in told)


def _table(head: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(_cell(cell) for cell in line)} |" for line in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _wrapped(text: str) -> str:
    return textwrap.fill(
        " ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False
    )


if __name__ == "__main__":
    PAGE.write_text(page())
