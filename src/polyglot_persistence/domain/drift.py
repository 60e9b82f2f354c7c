"""The kinds of differences between stores."""

import enum


class Drift(enum.Enum):
    """One kind; the value is its name in metrics and reports."""

    MISSING_DOCUMENT = "missing_document"
    """An order that search does not find."""
    EXTRA_DOCUMENT = "extra_document"
    """A search document without an order in the record."""
    CHANGED_DOCUMENT = "changed_document"
    """A search document that differs from the record."""
    WRONG_QUARTER_HOUR = "wrong_quarter_hour"
    """A cell of the sales by quarter hour that is not the sum over its orders."""
    WRONG_PRODUCT_DAY = "wrong_product_day"
    """A cell of the sales by product and day that is not the sum over its orders."""
    STALE_ENTRY = "stale_entry"
    """A clean cache entry that differs from the record."""
    LOST_ORDER = "lost_order"
    """An order that is persisted or dead-lettered according to the cache, and missing from the
    record: the record was restored, or the cache lost a discard."""
