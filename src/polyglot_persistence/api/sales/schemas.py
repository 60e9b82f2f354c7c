"""The query strings and the JSON of sales, as types that parse, encode and describe them."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from polyglot_persistence.api.web import queries as q
from polyglot_persistence.api.web.csv import CsvParameters
from polyglot_persistence.api.web.schemas import PRODUCT_NAME_SCHEMA, AmountOut, Moment
from polyglot_persistence.domain.order import parse_name
from polyglot_persistence.domain.periods import Grain, zone_of
from polyglot_persistence.errors import InvalidError, Violation

DAYS = 30
DAYS_MAX = 36_600
"""A hundred years, which is longer than the record."""
PRODUCTS_MAX = 1_000

FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime(2200, 1, 1, tzinfo=UTC)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _local(name: str, description: str, example: str) -> q.QueryParameter[datetime | None]:
    """Return a parameter that is a moment or a date, without an offset if it is local."""

    def parse(text: str) -> datetime:
        moment = q.parse_moment(text, local=True)
        if not FIRST <= moment.replace(tzinfo=UTC) <= _LAST:
            raise InvalidError(Violation(name, "must lie between 1970 and 2200"))
        return moment

    schema = {"type": "string", "examples": [example]}
    return q.QueryParameter(description, schema, parse, None, q.LOCAL_MOMENT_RULE, name)


def _day(name: str, description: str) -> q.QueryParameter[date | None]:
    """Return a parameter that is a date."""

    def parse(text: str) -> date:
        day = date.fromisoformat(text)
        if not _DATE.fullmatch(text) or not FIRST.date() <= day <= _LAST.date():
            raise ValueError(text)
        return day

    schema = {"type": "string", "format": "date"}
    rule = "must be a UTC date from 1970 to 2200; e.g. 2026-01-31"
    return q.QueryParameter(description, schema, parse, None, rule, name)


def _parse_product(name: str) -> str | None:
    return parse_name(name, "product")


class DailySalesParameters(q.QueryParameters):
    """Days of the dashboard."""

    days = q.count("Maximum number of days.", DAYS, maximum=DAYS_MAX)
    live = q.choice("`true`: as of now.", q.TRUTHS, otherwise=False)


class SalesParameters(CsvParameters):
    """Periods, and the product to report."""

    by = q.choice("Length of a period.", {grain.value: grain for grain in Grain}, Grain.DAY)
    since = _local(
        "from", "A date, or a moment; local in `tz` unless it has an offset.", "2026-01-01"
    )
    until = _local("to", "The exclusive end: a date or a moment; default now.", "2026-02-01")
    tz = q.QueryParameter(
        "IANA time zone of the hours, days and months.",
        {"type": "string", "default": "UTC", "examples": ["Europe/Berlin"]},
        zone_of,
        ZoneInfo("UTC"),
        "must be an IANA time zone; e.g. Europe/Berlin",
    )
    product = q.QueryParameter(
        "Only the product with exactly this name; with UTC days and months.",
        PRODUCT_NAME_SCHEMA,
        _parse_product,
        None,
    )

    def broken_rules(self) -> Iterator[str]:
        """Yield the rules between parameters that are broken."""
        if self.product is not None and (self.by is Grain.HOUR or self.tz.key != "UTC"):
            yield (
                "product goes with by=day and by=month of tz=UTC: sales of a product are kept by "
                "UTC day"
            )

    def in_zone(self, moment: datetime) -> datetime:
        """Return `since` or `until` in UTC."""
        return (moment if moment.tzinfo else moment.replace(tzinfo=self.tz)).astimezone(UTC)


class TopProductsParameters(CsvParameters):
    """Days, and the number of products."""

    since = _day("from", f"The first UTC day; default {DAYS} days before `to`.")
    until = _day("to", "The UTC day after the last; default tomorrow.")
    limit = q.count("Maximum number of products.", 10, cap=PRODUCTS_MAX)


class DaySalesOut(msgspec.Struct, frozen=True, gc=False):
    """Sales of one UTC day."""

    date: date
    total_revenue: AmountOut
    orders: int


class PeriodOut(msgspec.Struct, frozen=True, gc=False):
    """Sales of one period."""

    start: Annotated[Moment, Meta(description="In the time zone `tz`.")]
    revenue: AmountOut
    orders: int
    average: Annotated[Decimal | None, Meta(description="Per order; null without orders.")]
    growth: Annotated[
        Decimal | None,
        Meta(
            description="Growth of revenue over the period before: 0.25 is a quarter more. Null "
            "if that had none."
        ),
    ]


class SalesTotalOut(msgspec.Struct, frozen=True, gc=False):
    """All periods together."""

    revenue: AmountOut
    orders: int
    average: Decimal | None


class SalesOut(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Consecutive periods, oldest first."""

    as_of: Annotated[
        Moment, Meta(description="All orders in PostgreSQL at this moment are counted.")
    ]
    by: Literal["hour", "day", "month"]
    tz: str
    rows: list[PeriodOut]
    total: SalesTotalOut
    product: Annotated[str | None, Meta(description="Only if the request names one.")] = None


class ProductSalesOut(msgspec.Struct, frozen=True, gc=False):
    """Sales of one product."""

    product_name: str
    revenue: AmountOut
    orders: int
    average: Decimal | None


class TopProductsOut(msgspec.Struct, frozen=True, gc=False, rename={"first": "from", "end": "to"}):
    """Products by revenue, highest first, over UTC days from `from` to the day before `to`."""

    as_of: Moment
    first: date
    end: date
    products: list[ProductSalesOut]


class RefreshedOut(msgspec.Struct, frozen=True, gc=False):
    """The view was refreshed and is exact for this moment."""

    refreshed_at: Moment
