"""The `RebuildTarget` port: the index being built is beside the current one."""

from collections.abc import AsyncIterator, Collection
from contextlib import ExitStack, asynccontextmanager

from polyglot_persistence.adapters.tantivy.contents import TantivyContents
from polyglot_persistence.adapters.tantivy.index import TantivyIndex
from polyglot_persistence.telemetry import logger

_log = logger("search")


class TantivyTarget:
    """See `RebuildTarget`. `building` is an index in the other role, in the same directory."""

    def __init__(self, current: TantivyIndex, building: TantivyIndex) -> None:
        self.building = building
        self.contents = TantivyContents(building)
        self._current = current
        self._directory = building.directory
        self._timeout_seconds = building.index_timeout_seconds

    async def current_name(self) -> str | None:
        return await self._current.name()

    async def building_name(self) -> str | None:
        return await self.building.name()

    async def lost_parts(self) -> Collection[str]:
        """An index is one directory of this machine: there, or missing."""
        return ()

    async def adopt_settings(self) -> None:
        """An index has none."""

    async def begin(self) -> str:
        await self.building.release()
        return await self.building.manage(lambda: self._directory.begin(self._timeout_seconds))

    async def show(self) -> None:
        await self.building.show()

    @asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        """The lock waits for a running write, and ends with this process."""
        with ExitStack() as stack:
            await self.building.manage(
                lambda: stack.enter_context(
                    self._directory.writing(self._timeout_seconds, alone=True)
                )
            )
            yield

    async def swap(self) -> None:
        """Releases the writer, so that others can write to the index."""
        await self.building.release()
        await self.building.manage(lambda: self._directory.swap(self._timeout_seconds))
        _log.info("index_swapped")

    async def release(self) -> None:
        """Needed because an index has one writer among all processes."""
        await self.building.release()

    async def clean_up(self) -> None:
        await self.building.manage(lambda: self._directory.clean_up(self._timeout_seconds))
