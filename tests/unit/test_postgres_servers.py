"""How a DSN with several servers becomes one for each, and which of two primaries is used."""

import asyncio
from typing import cast
from urllib.parse import parse_qs, urlsplit

import pytest

from polyglot_persistence.adapters.postgres.primary import Connection, Primary, servers_of
from polyglot_persistence.errors import UnavailableError


@pytest.mark.parametrize(
    ("dsn", "servers"),
    [
        ("postgresql://u:p@h:1/db", ["h:1"]),
        ("postgresql://u:p@h:1,i/db?sslmode=require", ["h:1", "i"]),
        ("postgresql://[::1]:1,[::2]:2/db", ["[::1]:1", "[::2]:2"]),
        ("postgresql://u:p@/db?host=a,b&port=1,2", ["a 1", "b 2"]),
        ("postgresql://u:p@/db?host=a,b&port=1", ["a 1", "b 1"]),
        ("postgresql://u:p@/db?host=%2Frun%2Fa,%2Frun%2Fb", ["/run/a", "/run/b"]),
        ("postgresql://u:p@/db?host=%2Frun%2Fmy%20pg", ["/run/my pg"]),
        ("postgresql:///db", [""]),
    ],
)
def test_each_server_has_a_dsn(dsn: str, servers: list[str]) -> None:
    """With everything else that the DSN says, and each of them demands a primary."""
    found = []
    for one in servers_of(dsn):
        parts, query = urlsplit(one), parse_qs(urlsplit(one).query)
        login, _, place = parts.netloc.rpartition("@")
        assert login == ("u:p" if "u:p@" in dsn else "")
        assert parts.path == "/db"
        assert query["target_session_attrs"] == ["primary"]
        assert query.get("sslmode") == (["require"] if "sslmode" in dsn else None)
        where = [place, *query.get("host", []), *query.get("port", [])]
        found.append(" ".join(filter(None, where)))
    assert found == servers


def test_what_the_operator_demands_of_a_server_stays() -> None:
    """A primary whose transactions are read-only by default is not wanted then."""
    (one, two) = servers_of("postgresql://h,i/db?target_session_attrs=read-write")
    assert one == "postgresql://h/db?target_session_attrs=read-write"
    assert two == "postgresql://i/db?target_session_attrs=read-write"


class StubConnection:
    """A connection that only ends."""

    def __init__(self) -> None:
        self._transport = self
        self.is_ended = False

    def is_closed(self) -> bool:
        return self.is_ended

    def abort(self) -> None:
        self.is_ended = True

    terminate = abort


async def test_a_call_that_is_late_does_not_lead_back_to_a_former_primary(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another one has met the new primary since it found the former one."""
    former, new = StubConnection(), StubConnection()
    goes_on = asyncio.Event()
    primary = Primary("postgresql://one,two/db", connect_timeout_seconds=1)

    async def find(_options: object) -> tuple[Connection, str]:
        if late is asyncio.current_task():
            await goes_on.wait()
            return cast("Connection", former), "00000001 then"
        return cast("Connection", new), "00000002 now"

    monkeypatch.setattr(primary, "_find", find)
    late = asyncio.create_task(primary.connect(statement_timeout_seconds=1))
    assert await primary.connect(statement_timeout_seconds=1) is cast("Connection", new)
    goes_on.set()
    with pytest.raises(UnavailableError, match="a former primary: it is on timeline 1"):
        await late
    assert (former.is_ended, new.is_ended) == (True, False)
