"""What every port answers to a ping."""

from typing import NamedTuple


class StoreState(NamedTuple):
    """What a ping found."""

    version: str
    """Product and version, as the store says it."""
    warnings: tuple[str, ...] = ()
    """Settings that would break a promise, each with what to do."""
