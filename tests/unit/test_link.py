"""One link to a server is kept alive: callers share an attempt and never wait for a second one."""

import asyncio

import pytest

from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.runtime.link import KeepAlive
from tests.support.eventually import eventually_true


class Link:
    """A link that says why it was closed."""

    def __init__(self) -> None:
        self.closed_because = ""

    def close(self, reason: str) -> None:
        self.closed_because = self.closed_because or reason


class Server:
    """Opens links while it is up; an attempt waits for `answers`."""

    def __init__(self) -> None:
        self.is_up = True
        self.attempts = 0
        self.opened: list[Link] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.kept = KeepAlive("the server", self._open, pause_seconds_max=0.05)

    async def _open(self) -> Link:
        self.attempts += 1
        await self.answers.wait()
        if not self.is_up:
            raise ConnectionRefusedError
        self.opened.append(Link())
        return self.opened[-1]


async def test_callers_share_one_link() -> None:
    """It is opened at the first use, once for all who come meanwhile."""
    server = Server()
    assert server.attempts == 0
    links = await asyncio.gather(*(server.kept.get() for _ in range(5)))
    assert (set(links), server.attempts) == ({server.opened[0]}, 1)
    await server.kept.close()


async def test_a_lost_link_is_opened_again() -> None:
    """What is left of the lost one is closed before."""
    server = Server()
    lost = await server.kept.get()
    lost.close("the server restarted")
    assert await server.kept.get() is server.opened[1] is not lost
    await server.kept.close()


async def test_calls_fail_at_once_while_the_server_is_away() -> None:
    """Only the first waits for an attempt; a background task makes the next ones."""
    server = Server()
    server.is_up = False
    with pytest.raises(UnavailableError, match="the server is away: ConnectionRefusedError"):
        await server.kept.get()
    server.answers.clear()
    with pytest.raises(UnavailableError, match="ConnectionRefusedError"):
        await asyncio.wait_for(server.kept.get(), 1)
    server.is_up = True
    server.answers.set()
    await eventually_true(lambda: bool(server.opened))
    assert await server.kept.get() is server.opened[0]
    await server.kept.close()


async def test_nothing_is_opened_after_the_end() -> None:
    """An attempt under way ends, its callers hear why, and so do those who come later."""
    server = Server()
    server.answers.clear()
    waiting = asyncio.create_task(server.kept.get())
    await asyncio.sleep(0)
    await server.kept.close()
    for call in (waiting, server.kept.get()):
        with pytest.raises(UnavailableError):
            await call
    await server.kept.close()
    assert server.opened == []
