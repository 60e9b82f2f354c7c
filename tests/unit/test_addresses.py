"""Addresses of the stores: every documented form, several hosts, and what is refused."""

from collections.abc import Callable

import pytest

from polyglot_persistence.config.addresses.elasticsearch import (
    node_urls,
    search_directory,
    search_url,
)
from polyglot_persistence.config.addresses.passwords import mask
from polyglot_persistence.config.addresses.postgres import postgres_url
from polyglot_persistence.config.addresses.rabbitmq import queue_url, read_rabbitmq
from polyglot_persistence.config.addresses.redis import cache_address, read_redis


@pytest.mark.parametrize(
    ("text", "hosts", "rest"),
    [
        ("cache:6380", "cache:6380", (None, None, None, 0, False)),
        ("[::1]:7000", "[::1]:7000", (None, None, None, 0, False)),
        ("redis://cache/3", "cache:6379", (None, None, None, 3, False)),
        ("valkey://u:p%40ss@cache:1/2", "cache:1", (None, "u", "p@ss", 2, False)),
        ("redis://:pw@cache", "cache:6379", (None, None, "pw", 0, False)),
        ("redis://cache?db=2&password=pw", "cache:6379", (None, None, "pw", 2, False)),
        ("rediss://cache", "cache:6379", (None, None, None, 0, True)),
        ("valkeys://cache:9", "cache:9", (None, None, None, 0, True)),
        ("unix:///run/a%20b.sock?db=4&password=x", "", ("/run/a b.sock", None, "x", 4, False)),
    ],
)
def test_a_redis_address_is_read(text: str, hosts: str, rest: tuple[object, ...]) -> None:
    """Host, port, socket, user, password, database and TLS."""
    address = read_redis(text)
    assert ",".join(map(str, address.hosts)) == hosts
    assert address[1:6] == rest
    assert address.name is None


@pytest.mark.parametrize(
    ("text", "hosts", "rest"),
    [
        (
            "redis+sentinel://a,b:1,[::1]:2/polyglot",
            "a:26379,b:1,[::1]:2",
            (None, None, 0, False, "polyglot", None, None),
        ),
        (
            "rediss+sentinel://u:p@a/shop/3?sentinel_password=s%20q",
            "a:26379",
            ("u", "p", 3, True, "shop", None, "s q"),
        ),
        (
            "valkey+sentinel://a:5/my%20shop?sentinel_username=o&db=2",
            "a:5",
            (None, None, 2, False, "my shop", "o", None),
        ),
    ],
)
def test_an_address_of_sentinels_is_read(text: str, hosts: str, rest: tuple[object, ...]) -> None:
    """The sentinels, the name that they know the server by, and two logins."""
    address = read_redis(text)
    assert ",".join(map(str, address.hosts)) == hosts
    assert address[2:] == rest


@pytest.mark.parametrize(
    ("text", "hosts", "rest"),
    [
        ("amqp://broker", "broker:5672", ("guest", "guest", "/", False)),
        ("amqp://u:p%40ss@broker:1/", "broker:1", ("u", "p@ss", "/", False)),
        ("amqps://u:p@one,two:7/orders", "one:5671,two:7", ("u", "p", "orders", True)),
        ("amqp://u:@[fe80::1%eth0]:8,b/%2Fa", "[fe80::1%eth0]:8,b:5672", ("u", "", "/a", False)),
    ],
)
def test_a_rabbitmq_address_is_read(text: str, hosts: str, rest: tuple[object, ...]) -> None:
    """Nodes, user, password, virtual host and TLS, with the protocol's defaults."""
    address = read_rabbitmq(text)
    assert str(address) == hosts
    assert address[1:] == rest


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("http://es:9200", ["http://es:9200"]),
        (
            "https://u:p%40@a,b:9/below/",
            ["https://u:p%40@a:443/below/", "https://u:p%40@b:9/below/"],
        ),
        ("http://[::1]:1,b:2,c:3", ["http://[::1]:1", "http://b:2", "http://c:3"]),
    ],
)
def test_each_node_of_elasticsearch_has_a_url(text: str, urls: list[str]) -> None:
    """With the login and path of all."""
    assert node_urls(search_url(text)) == urls
    assert search_directory(text) is None


@pytest.mark.parametrize(
    ("check", "text", "reason"),
    [
        (cache_address, "http://:hush@cache", "not a URL of scheme redis"),
        (cache_address, "cache", "not host:port"),
        (cache_address, "a:1,b:2", "not host:port"),
        (cache_address, "redis://:hush@cache:port", "not a valid URL"),
        (cache_address, "redis://:hush@cache/first", "not a number"),
        (cache_address, "redis://:hush@cache?colour=red", "unknown parameter colour"),
        (cache_address, "redis://:hush@a?sentinel_password=x", "unknown parameter sentinel_"),
        (cache_address, "redis://:hush@a,b", r"several servers.*redis\+sentinel"),
        (cache_address, "redis+sentinel://:hush@a,b", "no name of a server"),
        (cache_address, "redis+sentinel://:hush@a,,b/x", "without a host"),
        (cache_address, "unix://?password=hush", "absolute path"),
        (queue_url, "http://u:hush@b", "not a URL of scheme amqp"),
        (queue_url, "amqp://u:hush@b:x", "not a valid URL"),
        (queue_url, "amqp://u:hush@b,c:0/", "0 is not a port"),
        (queue_url, "amqp://u:hush@b/?heartbeat=9", "has parameters"),
        (queue_url, "redis+sentinel://:hush@a/name", "not a URL of scheme amqp"),
        (search_url, "http://u:hush@", "names no host"),
        (search_url, "http://u:hush@a,b:99999", "not a valid URL"),
        (search_url, "http://u:hush@x@a", "%40"),
        (postgres_url, "postgresql://u:hush@a,/db", "without a host"),
    ],
)
def test_a_bad_address_is_refused_without_its_password(
    check: Callable[[str], str], text: str, reason: str
) -> None:
    """The reason has an example instead."""
    with pytest.raises(ValueError, match=reason) as caught:
        check(text)
    assert "hush" not in str(caught.value)
    assert "e.g." in str(caught.value)


def test_the_text_of_an_address_has_no_password() -> None:
    """An address in a log line or a traceback says where, not how to get in."""
    for address in (
        read_redis("redis://user:hush@cache:6379"),
        read_redis("redis+sentinel://:hush@a,b/polyglot?sentinel_password=hush"),
        read_rabbitmq("amqp://u:hush@broker"),
    ):
        assert "hush" not in f"{address} {address!r}"
    assert mask("redis+sentinel://u:p@a,b/n?sentinel_password=hush&db=1") == (
        "redis+sentinel://u:***@a,b/n?sentinel_password=***&db=1"
    )
