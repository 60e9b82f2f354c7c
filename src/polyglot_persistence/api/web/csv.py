"""Answers as CSV (RFC 4180), safe to open in a spreadsheet.

Invariant: no cell that a user wrote is taken for a formula, whatever it begins with, and whichever
separator of lists the reader's spreadsheet parts it at: with `;` as separator, as in much of
Europe, the quotes of this file do not hold a cell together (OWASP, "CSV Injection"). Numbers and
moments are ours; they stay as they are.
"""

import csv
import io
import re
from collections.abc import Iterable
from datetime import datetime

import msgspec
from starlette.requests import Request

from polyglot_persistence.api.web.queries import TRUTHS, QueryParameters, choice
from polyglot_persistence.api.web.replies import COMMON_HEADERS, Headers, Reply

_SEPARATORS = r",;|:^~\t\r\n"
"""Separators of cells that spreadsheets use, by locale or by choice when a file is opened."""

_FORMULA = re.compile(rf"(^[\t\r\n]|(?:^|[{_SEPARATORS}])\"*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])")
"""Matches before a character that begins a formula, also in full width, which some accept too."""


class CsvParameters(QueryParameters):
    """The parameters of a route that answers in JSON or in CSV."""

    format = choice(
        "Overrides `Accept`. In CSV, no product name is a formula.",
        {"json": False, "csv": True},
        None,
    )
    bom = choice(
        "`true`: the CSV starts with a byte order mark, by which Excel recognizes UTF-8.",
        TRUTHS,
        otherwise=False,
    )
    """Without the mark, Excel decodes UTF-8 as the encoding of its country. Most programs take the
    mark for a part of the first column's name."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        accept = request.headers.get("accept", "")
        is_better = _quality(accept, "text/csv") > _quality(accept, "application/json")
        self.wants_csv = is_better if self.format is None else self.format


def csv_reply(
    query: CsvParameters,
    file_name: str,
    row_type: type[msgspec.Struct],
    rows: Iterable[msgspec.Struct],
    headers: Headers,
) -> Reply:
    """Return rows as a file with a column for each field; None is an empty cell."""
    text = io.StringIO(newline="")
    if query.bom:
        text.write("\ufeff")
    writer = csv.writer(text)
    writer.writerow(row_type.__struct_fields__)
    writer.writerows(map(_cell, msgspec.structs.astuple(row)) for row in rows)
    types: Headers = (
        (b"content-type", b"text/csv; charset=utf-8; header=present"),
        (b"content-disposition", f'attachment; filename="{file_name}"'.encode()),
        (b"vary", b"accept"),
    )
    return 200, (*types, *COMMON_HEADERS, *headers), text.getvalue().encode()


def _cell(cell: object) -> object:
    if isinstance(cell, datetime):
        return cell.isoformat()
    return _FORMULA.sub(r"\1'", cell) if isinstance(cell, str) else cell


def _quality(accept: str, media_type: str) -> float:
    """Return the weight of a media type: its own, else that of its range, else that of `*/*`."""
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
