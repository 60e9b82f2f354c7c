"""How a DSN with several servers becomes one for each."""

from urllib.parse import parse_qs, urlsplit

import pytest

from polyglot_persistence.adapters.postgres.primary import servers_of


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
