"""What every port answers to a ping."""

from typing import NamedTuple


class StoreWarning(NamedTuple):
    """A setting of a store that would break a promise."""

    detail: str
    remedy: str = ""
    """What an operator can do, if that is known."""

    def __str__(self) -> str:
        return f"{self.detail}; {self.remedy}" if self.remedy else self.detail


class StoreState(NamedTuple):
    """What a ping found."""

    version: str
    """Product and version, as the store says it."""
    warnings: tuple[StoreWarning, ...] = ()
