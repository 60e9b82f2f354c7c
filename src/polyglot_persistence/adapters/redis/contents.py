"""Contents of the cache, scanned in steps that do not block the server."""

from uuid import UUID

from polyglot_persistence.adapters.redis import keys
from polyglot_persistence.adapters.redis.client import RedisClient
from polyglot_persistence.domain.history import Position
from polyglot_persistence.errors import UnavailableError, UnknownOutcomeError
from polyglot_persistence.ports.audit import CachePart


class RedisContents:
    """`CacheContents` over the client of a cache."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def scan(self, cursor: int, entries_max: int) -> CachePart:
        """Each call blocks the server for about a millisecond."""
        try:
            following, names = await self._client.execute(
                "SCAN", cursor, "MATCH", keys.EVERY_ENTRY, "COUNT", entries_max
            )
            names = [name for name in dict.fromkeys(names) if _id(name) is not None]
            raws = await self._client.execute("MGET", *names) if names else []
        except UnknownOutcomeError as error:  # nothing was written
            raise UnavailableError(str(error)) from error
        entries = [
            (order_id, raw)
            for name, raw in zip(names, raws, strict=True)
            if raw is not None and (order_id := _id(name)) is not None
        ]
        return CachePart(int(following), entries)

    async def compared_to(self) -> Position | None:
        """A text of a newer version counts as none."""
        try:
            text = await self._client.execute("GET", keys.COMPARED)
        except UnknownOutcomeError as error:  # nothing was written
            raise UnavailableError(str(error)) from error
        return None if text is None else Position.decode(text.decode("utf-8", "replace"))

    async def keep_compared_to(self, position: Position) -> None:
        await self._client.execute("SET", keys.COMPARED, position.encode())


def _id(name: bytes) -> UUID | None:
    try:
        return UUID(keys.member(name).decode())
    except ValueError:
        return None  # not one of ours
