"""Which Sentinels a process believes."""

import asyncio

import pytest

from polyglot_persistence.adapters.redis.sentinel import Sentinels, View
from polyglot_persistence.config.addresses.hosts import Host
from polyglot_persistence.config.addresses.redis import read_redis
from polyglot_persistence.errors import UnavailableError

FORMER, NEW = Host("former", 6379), Host("new", 6379)


async def test_sentinels_that_have_not_heard_yet_do_not_lead_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A majority that answers first and names the former primary, while another knows better."""
    epochs = {"one": 5, "two": 4, "three": 4}
    slow = {"two"}

    async def ask(_self: Sentinels, host: Host) -> View:
        for _ in range(20 * (host.name in slow)):
            await asyncio.sleep(0)
        if not epochs[host.name]:
            raise UnavailableError("no answer within 1 s")
        epoch = epochs[host.name]
        return View(NEW if epoch == 5 else FORMER, epoch, 3, "")

    monkeypatch.setattr(Sentinels, "_ask", ask)
    address = read_redis("redis+sentinel://one,two,three/polyglot")
    sentinels = Sentinels(address, None, timeout_seconds=1)
    assert (await sentinels.ask()).newest.primary == NEW
    slow = {"one"}
    assert (await sentinels.ask()).newest.primary == NEW
    epochs["one"] = 0  # it was the only one that knew: a majority counts
    assert (await sentinels.ask()).newest.primary == FORMER
    assert (await sentinels.ask()).newest.primary == FORMER
