"""The first search index of all: made empty, before there is an order, without a rebuild.

Why it is complete: an order that is persisted has an outbox row until the current index has the
order. If the record is still empty once the index is there, every order to come finds the index.
If it is not, another process persisted meanwhile, and a rebuild has to compare the two.
"""

from polyglot_persistence.errors import PolyglotError
from polyglot_persistence.ports.record import RecordState
from polyglot_persistence.ports.search import SearchIndex


class FirstIndex:
    """Makes the index of an empty record."""

    def __init__(self, state: RecordState, search: SearchIndex) -> None:
        self._state = state
        self._search = search

    async def is_due(self) -> bool:
        """Return whether there is no usable index, and no order that belongs into one.

        Raises:
            UnavailableError: index or record is away.
        """
        return not await self._search.exists() and await self._is_record_empty()

    async def make(self) -> bool:
        """Make the index if it is due; return whether it was, and is complete.

        Only in the role of a rebuild.

        Raises:
            UnavailableError: index or record is away; call it again.
        """
        if not await self.is_due():
            return False
        await self._search.ensure()
        return await self._is_record_empty() and await self._search.count() == 0

    async def answers(self) -> bool:
        """Return whether searches are answered: a new index may take a moment to open."""
        try:
            await self._search.ping()
        except PolyglotError:
            return False
        return True

    async def _is_record_empty(self) -> bool:
        return (await self._state.progress(dead_letters_max=0)).persisted == 0
