"""Types of fields that several features share, as they are published."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from msgspec import Meta

from polyglot_persistence.domain.order import (
    BIDI_CONTROLS,
    INVISIBLE,
    NAME_CHARACTERS_MAX,
    NONCHARACTERS,
)

# The limits stand in the schema only: a name is measured after trimming, which msgspec cannot do.
_NO = rf"\x00-\x1f\x7f-\x9f\u2028\u2029{BIDI_CONTROLS}{NONCHARACTERS}"
_NAME_LIMITS: dict[str, Any] = {
    "minLength": 1,
    "maxLength": NAME_CHARACTERS_MAX,
    "pattern": rf"^[^{_NO}]*[^{_NO}{INVISIBLE}][^{_NO}]*$",
}
PRODUCT_NAME_SCHEMA = {"type": "string", **_NAME_LIMITS}
ProductName = Annotated[
    str,
    Meta(
        description="Stored without surrounding blanks and in Unicode's composed form (NFC). No "
        "control characters, none that turn the direction of text, and no noncharacters (U+FFFE); "
        "at least one is visible.",
        examples=["Laptop"],
        extra_json_schema=_NAME_LIMITS,
    ),
]
AmountOut = Annotated[Decimal, Meta(description="Exact, two decimals.")]
Moment = Annotated[datetime, Meta(tz=True)]
NextPage = Annotated[str | None, Meta(description="Path of the next page; absent on the last.")]
