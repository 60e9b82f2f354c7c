"""The result of a ping, for every port."""

from typing import NamedTuple


class StoreWarning(NamedTuple):
    """A setting of a store that would break a promise."""

    detail: str
    remedy: str = ""
    """The remedy for an operator, if known."""

    def __str__(self) -> str:
        return f"{self.detail}; {self.remedy}" if self.remedy else self.detail


class StoreState(NamedTuple):
    """Result of a ping."""

    version: str
    """Product and version, as reported by the store."""
    warnings: tuple[StoreWarning, ...] = ()
