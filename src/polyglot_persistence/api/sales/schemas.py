"""The JSON of sales, as types that encode and describe it."""

from datetime import date
from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from polyglot_persistence.api.web.schemas import AmountOut, Moment


class DaySalesOut(msgspec.Struct, frozen=True, gc=False):
    """Sales of one UTC day."""

    date: date
    total_revenue: AmountOut
    orders: int


class PeriodOut(msgspec.Struct, frozen=True, gc=False):
    """Sales of one period."""

    start: Annotated[Moment, Meta(description="In the asked time zone.")]
    revenue: AmountOut
    orders: int
    average: Annotated[Decimal | None, Meta(description="Of an order; null without orders.")]
    growth: Annotated[
        Decimal | None,
        Meta(
            description="Of revenue against the period before: 0.25 is a quarter more. Null if "
            "there was none."
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
        Moment, Meta(description="Every order that was in PostgreSQL at this moment is counted.")
    ]
    by: Literal["hour", "day", "month"]
    tz: str
    rows: list[PeriodOut]
    total: SalesTotalOut
    product: Annotated[str | None, Meta(description="If one was asked for.")] = None


class ProductSalesOut(msgspec.Struct, frozen=True, gc=False):
    """Sales of one product."""

    product_name: str
    revenue: AmountOut
    orders: int
    average: Decimal | None


class TopProductsOut(msgspec.Struct, frozen=True, gc=False, rename={"first": "from", "end": "to"}):
    """Products by revenue, highest first; of UTC days, the last of which is the one before `to`."""

    as_of: Moment
    first: date
    end: date
    products: list[ProductSalesOut]


class RefreshedOut(msgspec.Struct, frozen=True, gc=False):
    """The view was refreshed and is exact for this moment."""

    refreshed_at: Moment
