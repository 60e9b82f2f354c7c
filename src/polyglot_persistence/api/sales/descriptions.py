"""What is published about the routes over the sales."""

from polyglot_persistence.api.sales import schemas as s
from polyglot_persistence.api.sales.handlers import PERIODS_MAX, PRODUCT_DAYS_MAX
from polyglot_persistence.api.web.descriptions import (
    MOMENT,
    READ_PROBLEMS,
    WRITE_PROBLEMS,
    Answer,
    Operation,
)
from polyglot_persistence.domain.periods import Grain

CSV = "text/csv"

_PERIOD = {
    "start": "2026-01-31T00:00:00+01:00",
    "revenue": 1299.99,
    "orders": 1,
    "average": 1299.99,
    "growth": 0.25,
}
_PRODUCT = {"product_name": "Laptop", "revenue": 1299.99, "orders": 1, "average": 1299.99}
_TOTAL = {"revenue": 1299.99, "orders": 1, "average": 1299.99}

DASHBOARD = Operation(
    "dailySales",
    "sales",
    "Sales of the latest days",
    "Newest first; days without sales are not listed. From the materialized view `daily_sales_mv`, "
    "as of its last refresh; with `live`, exact as of now.",
    Answer(
        "The days.",
        list[s.DaySalesOut],
        [{"date": "2026-01-31", "total_revenue": 1299.99, "orders": 1}],
        headers=("X-As-Of",),
    ),
    READ_PROBLEMS,
    s.DailySalesParameters.described,
)
BY_PERIOD = Operation(
    "sales",
    "sales",
    "Sales by hour, day or month",
    "Whole periods, oldest first: from the one that contains `from` to the one that contains `to` "
    "or ends there. The transaction that persists an order updates them, so they are exact to the "
    f"cent as of `as_of`. At most {PERIODS_MAX[Grain.HOUR]} hours, {PERIODS_MAX[Grain.DAY]} days "
    f"or {PERIODS_MAX[Grain.MONTH]} months.",
    Answer(
        "The periods.",
        s.SalesOut,
        {"as_of": MOMENT, "by": "day", "tz": "Europe/Berlin", "rows": [_PERIOD], "total": _TOTAL},
        also=CSV,
    ),
    READ_PROBLEMS,
    s.SalesParameters.described,
)
TOP_PRODUCTS = Operation(
    "topProducts",
    "sales",
    "The products with the highest revenue",
    f"Over at most {PRODUCT_DAYS_MAX} UTC days; exact to the cent as of `as_of`.",
    Answer(
        "The products, highest first.",
        s.TopProductsOut,
        {"as_of": MOMENT, "from": "2026-01-01", "to": "2026-02-01", "products": [_PRODUCT]},
        also=CSV,
    ),
    READ_PROBLEMS,
    s.TopProductsParameters.described,
)
REFRESH = Operation(
    "refreshSales",
    "admin",
    "Refresh the materialized view",
    "Concurrently: readers see the old view until the new one is complete.",
    Answer("The view is fresh.", s.RefreshedOut, {"refreshed_at": MOMENT}),
    WRITE_PROBLEMS,
)
