"""Answers as CSV (RFC 4180), safe to open in a spreadsheet.

Invariant: no cell that a user wrote is taken for a formula, whatever it begins with (OWASP, "CSV
Injection"). Numbers and moments are ours; they stay as they are.
"""

import csv
import io
from collections.abc import Iterable, Sequence

from starlette.requests import Request

from polyglot_persistence.api.replies import COMMON_HEADERS, Headers, Reply
from polyglot_persistence.errors import MalformedError

_FORMULA_BEGINS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The last four are the first four in full width, which some spreadsheets take for the same."""


def wants_csv(request: Request) -> bool:
    """Whether `format=csv` or the `Accept` header asks for CSV rather than JSON.

    Raises:
        MalformedError: another format.
    """
    form = request.query_params.get("format")
    if form is not None:
        if form not in ("csv", "json"):
            raise MalformedError("the query parameter format must be csv or json")
        return form == "csv"
    accept = request.headers.get("accept", "")
    return _quality(accept, "text/csv") > _quality(accept, "application/json")


def csv_reply(
    file_name: str, head: Sequence[str], rows: Iterable[Sequence[object]], headers: Headers
) -> Reply:
    """Return rows as a file; None is an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(head)
    writer.writerows([_cell(cell) for cell in row] for row in rows)
    types: Headers = (
        (b"content-type", b"text/csv; charset=utf-8; header=present"),
        (b"content-disposition", f'attachment; filename="{file_name}"'.encode()),
        (b"vary", b"accept"),
    )
    return 200, (*types, *COMMON_HEADERS, *headers), text.getvalue().encode()


def _cell(cell: object) -> object:
    if isinstance(cell, str) and cell.startswith(_FORMULA_BEGINS):
        return f"'{cell}"
    return cell


def _quality(accept: str, media_type: str) -> float:
    """Return how much a media type is wanted: by its own name, else as one of `*/*`."""
    wanted = {"*/*": 0.0 if accept else 1.0}
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weights = [p.removeprefix("q=") for p in parameters if p.startswith("q=")]
        try:
            wanted[name] = float(weights[0]) if weights else 1.0
        except ValueError:
            wanted[name] = 0.0
    main_type = media_type.partition("/")[0]
    return wanted.get(media_type, wanted.get(f"{main_type}/*", wanted["*/*"]))
