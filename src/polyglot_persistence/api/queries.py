"""Numbers in query strings."""

from starlette.requests import Request

from polyglot_persistence.errors import MalformedError

_DIGITS_MAX = 9


def parse_count(
    request: Request, name: str, *, otherwise: int, cap: int | None = None, maximum: int = 0
) -> int:
    """Return a query parameter that counts something, at least 1.

    One over `cap` is taken as `cap`; without a cap, one over `maximum` is refused.

    Raises:
        MalformedError: it is no such number.
    """
    text = request.query_params.get(name)
    if text is None:
        return otherwise
    digits = text.lstrip("0")
    if not (text.isascii() and text.isdigit()) or not digits:
        raise MalformedError(f"the query parameter {name} must be a whole number, 1 or more")
    if cap is not None:
        return cap if len(digits) > _DIGITS_MAX else min(int(digits), cap)
    if len(digits) > _DIGITS_MAX or int(digits) > maximum:
        raise MalformedError(f"the query parameter {name} may be {maximum} at most")
    return int(digits)
