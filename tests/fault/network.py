"""A link to a store that loses replies and is slow, by a seed; also to a Unix socket."""

import asyncio
import random
from pathlib import Path

from tests.support.proxy import Proxy

SLOW_SECONDS_MAX = 0.3


class Link(Proxy):
    """A proxy whose way back is bad: what was asked arrives, its reply may not."""

    def __init__(self, target: tuple[str, int] | Path, seed: str) -> None:
        super().__init__(*((str(target), 0) if isinstance(target, Path) else target))
        self._random = random.Random(seed)
        self.lost_share = 0.0
        """Of the replies, so many are lost with their connection."""
        self.slow_share = 0.0
        self.lost = 0

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            data = await reader.read(65_536)
            await self._flowing.wait()
            if not data:
                return
            if self._random.random() < self.lost_share:
                self.lost += 1
                return  # which resets both sides
            if self._random.random() < self.slow_share:
                await asyncio.sleep(self._random.uniform(0, SLOW_SECONDS_MAX))
            writer.write(data)
            await writer.drain()
