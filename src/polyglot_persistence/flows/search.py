"""Full-text search over product names."""

from polyglot_persistence.ports import SearchIndex, SearchResult


class SearchFlow:
    """Answers queries from the search index, a projection of the record."""

    def __init__(self, search: SearchIndex) -> None:
        self._search = search

    async def search(self, query: str, hits_max: int) -> SearchResult:
        """Return the best matches.

        Raises:
            UnavailableError: the index is missing or away; never an empty success.
        """
        return await self._search.search(query, hits_max)
