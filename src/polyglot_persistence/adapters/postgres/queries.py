"""The named statements of `queries.sql`.

Invariant: every statement of this adapter is there, except for the migrations and their
bookkeeping.
"""

import re
from collections.abc import Mapping
from importlib import resources
from typing import Final

_HEAD = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def _load() -> Mapping[str, str]:
    text = resources.files(__package__).joinpath("queries.sql").read_text(encoding="utf-8")
    _, *parts = _HEAD.split(text)
    return dict(zip(parts[::2], parts[1::2], strict=True))


QUERIES: Final = _load()
"""Statement by name; the name is also the `operation` of `db_query_duration_seconds`."""
