"""A database's position in its history, which shows whether it has lost commits."""

from typing import NamedTuple, Self


class Position(NamedTuple):
    """A position in the history of one database: a branch, and a distance along it.

    A database goes forward on its branch. A promoted standby, a database that was recovered to a
    moment in the past, and one that was created anew are each on another branch.
    """

    branch: str
    written: int
    """Bytes of the write-ahead log."""

    def follows(self, earlier: "Position") -> bool:
        """Return whether everything committed at an earlier position is still there."""
        return self.branch == earlier.branch and self.written >= earlier.written

    def encode(self) -> str:
        """Return the text that `decode` reads."""
        return f"{self.branch} {self.written}"

    @classmethod
    def decode(cls, text: str) -> Self | None:
        """Return the position of a text; None if this version did not write it."""
        branch, _, written = text.rpartition(" ")
        if not branch or not (written.isascii() and written.isdecimal()):
            return None
        return cls(branch, int(written))
