"""What is published about the routes over the sales."""

from polyglot_persistence.api.sales import schemas as s
from polyglot_persistence.api.sales.handlers import (
    DAYS,
    DAYS_MAX,
    PERIODS_MAX,
    PRODUCT_DAYS_MAX,
    PRODUCTS,
    PRODUCTS_MAX,
)
from polyglot_persistence.api.web.descriptions import (
    JSON,
    MOMENT,
    READ_PROBLEMS,
    WRITE_PROBLEMS,
    Answer,
    Content,
    Operation,
    Parameter,
)
from polyglot_persistence.api.web.schemas import PRODUCT_NAME_SCHEMA
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
_FORMAT = Parameter(
    "format",
    "query",
    "As `Accept: text/csv` does. In CSV no product name is a formula.",
    {"type": "string", "enum": ["json", "csv"]},
)
_BOM = Parameter(
    "bom",
    "query",
    "`true`: the CSV begins with a byte order mark, by which Excel knows UTF-8.",
    {"type": "string", "enum": ["true", "false"], "default": "false"},
)

DASHBOARD = Operation(
    "dailySales",
    "sales",
    "Sales of the latest days",
    "Newest first; days without sales are not listed. From the materialized view `daily_sales_mv`, "
    "as of its last refresh; with `live` with the exact remainder since.",
    {
        200: Answer(
            "The days.",
            Content(
                JSON,
                list[s.DaySalesOut],
                [{"date": "2026-01-31", "total_revenue": 1299.99, "orders": 1}],
            ),
            ("X-As-Of",),
        )
    },
    READ_PROBLEMS,
    parameters=(
        Parameter(
            "days",
            "query",
            "Most days.",
            {"type": "integer", "minimum": 1, "maximum": DAYS_MAX, "default": DAYS},
        ),
        Parameter("live", "query", "As of now.", {"type": "string", "enum": ["true", "false"]}),
    ),
)
BY_PERIOD = Operation(
    "sales",
    "sales",
    "Sales by hour, day or month",
    "Every period from the one that holds `from` to the one that ends with or holds `to`, whole, "
    "oldest first, as it is kept by the transaction that persists an order: exact to the cent as "
    f"of `as_of`. At most {PERIODS_MAX[Grain.HOUR]} hours, {PERIODS_MAX[Grain.DAY]} days or "
    f"{PERIODS_MAX[Grain.MONTH]} months.",
    {
        200: Answer(
            "The periods.",
            Content(
                JSON,
                s.SalesOut,
                {
                    "as_of": MOMENT,
                    "by": "day",
                    "tz": "Europe/Berlin",
                    "rows": [_PERIOD],
                    "total": _TOTAL,
                },
            ),
            alternative=Content(CSV),
        )
    },
    READ_PROBLEMS,
    parameters=(
        Parameter(
            "by",
            "query",
            "How long a period is.",
            {"type": "string", "enum": [grain.value for grain in Grain], "default": "day"},
        ),
        Parameter(
            "from",
            "query",
            "A date, or a moment; local in `tz` unless it says otherwise.",
            {"type": "string", "examples": ["2026-01-01"]},
        ),
        Parameter(
            "to",
            "query",
            "The end, not within: a date or a moment; now, if absent.",
            {"type": "string", "examples": ["2026-02-01"]},
        ),
        Parameter(
            "tz",
            "query",
            "An IANA time zone, whose hours, days and months they are.",
            {"type": "string", "default": "UTC", "examples": ["Europe/Berlin"]},
        ),
        Parameter(
            "product",
            "query",
            "One product only, by its whole name; with UTC days and months.",
            PRODUCT_NAME_SCHEMA,
        ),
        _FORMAT,
        _BOM,
    ),
)
TOP_PRODUCTS = Operation(
    "topProducts",
    "sales",
    "The products with the highest revenue",
    f"In UTC days, {PRODUCT_DAYS_MAX} at most; exact to the cent as of `as_of`.",
    {
        200: Answer(
            "The products, highest first.",
            Content(
                JSON,
                s.TopProductsOut,
                {
                    "as_of": MOMENT,
                    "from": "2026-01-01",
                    "to": "2026-02-01",
                    "products": [_PRODUCT],
                },
            ),
            alternative=Content(CSV),
        )
    },
    READ_PROBLEMS,
    parameters=(
        Parameter(
            "from",
            "query",
            f"The first UTC day; {DAYS} days before `to`, if absent.",
            {"type": "string", "format": "date"},
        ),
        Parameter(
            "to",
            "query",
            "The UTC day after the last; tomorrow, if absent.",
            {"type": "string", "format": "date"},
        ),
        Parameter(
            "limit",
            "query",
            f"Most products; more than {PRODUCTS_MAX} is taken as that.",
            {"type": "integer", "minimum": 1, "default": PRODUCTS},
        ),
        _FORMAT,
        _BOM,
    ),
)
REFRESH = Operation(
    "refreshSales",
    "admin",
    "Refresh the materialized view",
    "Concurrently: readers see the old view until the new one is there.",
    {200: Answer("The view is fresh.", Content(JSON, s.RefreshedOut, {"refreshed_at": MOMENT}))},
    WRITE_PROBLEMS,
)
