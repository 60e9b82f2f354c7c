"""A cache entry: an accepted order and its state.

```
            accept                 persist commits
  (absent) --------> dirty --------------------------> clean --24 h--> (absent)
                       |                                 ^
                       | can never be persisted          | replayed by an operator
                       +--------> dead-lettered ---------+
                                   --24 h--> (absent; the row in PostgreSQL stays)
```

Invariant: a dirty entry never expires and is never evicted; the other two do and may be.
"""

import enum
from typing import NamedTuple

from polyglot_persistence.domain.order import AcceptedOrder


class EntryState(bytes, enum.Enum):
    """The state, as the one byte that begins an entry in the cache."""

    DIRTY = b"D"
    """Accepted, not known to be persisted."""
    CLEAN = b"C"
    """Equal to the system of record."""
    DEAD = b"X"
    """In the dead letters."""


class Entry(NamedTuple):
    """A decoded cache entry; `body` is the order's own JSON, as a reader receives it."""

    state: EntryState
    accepted: AcceptedOrder
    body: bytes
