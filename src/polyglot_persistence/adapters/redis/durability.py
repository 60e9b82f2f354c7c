"""Durability of a Redis server's acknowledgments: queried from the server, or set by an operator.

Invariant: unknown counts as not durable, and as a server that may evict dirty entries.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from polyglot_persistence.adapters.redis.connection import RedisConnection, ReplyError
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.state import StoreWarning

_MAJOR_MIN: Final = 7
"""The scripts' flags (`#!lua flags=...`) and `SET ... NX GET` came with Redis 7.0."""

_DURABLE: Final = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
}
"""With these the reply to a write follows the fsync (redis.io, "Redis persistence")."""


_REPLICAS_MIN: Final = "min-replicas-to-write"
_REPLICAS_TO_LOSE_ONE: Final = 2
"""With fewer, the setting would have the server refuse writes whenever its replica is away."""


class ServerFacts(NamedTuple):
    """Facts reported by a server; empty where it does not report them."""

    reign: str
    """Its replication id: new at every start, promotion and load of another server's data
    (`changeReplicationId` in replication.c of Redis and Valkey), and random, so none recurs."""
    version: str
    durable: bool
    """It fsyncs before it answers, and evicts nothing dirty."""
    warnings: tuple[StoreWarning, ...]
    is_primary: bool = True
    replicas: int = 0
    """Number of connected replicas."""
    evicts_dirty: bool = False
    had_replicas: bool = True
    """Whether one was connected since this server began, and within the last `repl-backlog-ttl`."""
    is_cluster_node: bool = False


ASK_RULE: Final = ("INFO", "replication", "memory")
"""Queries only as much as a 404 needs."""


class Rule(NamedTuple):
    """A server's role and eviction policy."""

    reign: str
    is_primary: bool
    evicts_dirty: bool


async def ask(connection: RedisConnection, *, durable: bool | None) -> ServerFacts:
    """Query a server's identity and durability; `durable` overrides its fsync policy.

    A server that forbids CONFIG (managed ones do) counts as having unknown settings.

    Raises:
        UnavailableError: it forbids INFO, so that nothing about it can be known.
    """
    info_reply, config_reply = await connection.request(
        [
            ("INFO", "server", "replication", "memory", "cluster", "persistence"),
            ("CONFIG", "GET", *_DURABLE, "maxmemory", _REPLICAS_MIN),
        ]
    )
    if isinstance(info_reply, ReplyError):
        raise UnavailableError(f"the server does not say what it is: {info_reply}") from info_reply
    info = _info(info_reply)
    config = {} if isinstance(config_reply, ReplyError) else _config(config_reply)
    fsyncs = all(config.get(name) == value for name, value in _DURABLE.items())
    fsyncs = fsyncs and not _begins_its_log(info)
    product = info.get("server_name", "redis").capitalize()
    version = info.get(f"{product.lower()}_version", info.get("redis_version", "unknown"))
    rule = _rule(info)
    return ServerFacts(
        reign=rule.reign,
        version=f"{product} {version}",
        durable=(fsyncs if durable is None else durable) and not rule.evicts_dirty,
        warnings=tuple(_warnings(config, info, durable=durable)),
        is_primary=rule.is_primary,
        replicas=int(info.get("connected_slaves", "0")),
        evicts_dirty=rule.evicts_dirty,
        had_replicas=info.get("repl_backlog_active") != "0",
        is_cluster_node=info.get("cluster_enabled") == "1",
    )


def rule_of(reply: bytes | ReplyError) -> Rule:
    """Return what the reply to `ASK_RULE` says."""
    return _rule(_info(reply))


def _rule(info: dict[str, str]) -> Rule:
    policy = info.get("maxmemory_policy", "")
    return Rule(
        reign=info.get("master_replid", ""),
        is_primary=info.get("role") == "master",
        evicts_dirty=info.get("maxmemory") != "0" and (not policy or policy.startswith("allkeys")),
    )


def _begins_its_log(info: dict[str, str]) -> bool:
    """Return whether the log has no base yet, and so is not what the server would start from.

    After `CONFIG SET appendonly yes` writes go to a temporary file until the first rewrite has
    ended (`rewriteAppendOnlyFileBackground` in aof.c of Redis 7 and Valkey).
    """
    is_rewritten = "1" in (info.get("aof_rewrite_in_progress"), info.get("aof_rewrite_scheduled"))
    has_failed = info.get("aof_last_bgrewrite_status") != "ok"
    return info.get("aof_base_size", "0") == "0" and (is_rewritten or has_failed)


def _info(reply: bytes | ReplyError) -> dict[str, str]:
    if isinstance(reply, ReplyError):
        return {}
    return dict(re.findall(r"^(\w+):(.*?)\r?$", reply.decode(), re.MULTILINE))


def _config(reply: Sequence[bytes]) -> dict[str, str]:
    texts = [text.decode() for text in reply]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _warnings(
    config: dict[str, str], info: dict[str, str], *, durable: bool | None
) -> Iterator[StoreWarning]:
    version = info.get("redis_version", "")
    major = version.partition(".")[0]
    if major.isdigit() and int(major) < _MAJOR_MIN:
        yield StoreWarning(f"Redis {version} is too old", f"{_MAJOR_MIN}.0 or later is needed")
    policy = info.get("maxmemory_policy", "")
    if policy.startswith("allkeys"):
        yield StoreWarning(
            f"maxmemory-policy {policy} may evict dirty orders", "set it to volatile-ttl"
        )
    if not config:
        if durable is None:
            yield StoreWarning(
                "CONFIG is forbidden, so it counts as not durable",
                "set CACHE_DURABLE if its provider promises that it is",
            )
        return
    if _begins_its_log(info):
        yield StoreWarning(
            "its append-only file is not complete yet",
            "wait until its first rewrite has ended (aof_rewrite_in_progress in INFO persistence)",
        )
    for name, wanted in _DURABLE.items():
        if config.get(name) != wanted:
            yield StoreWarning(f"{name} is {config.get(name)}", f"set it to {wanted} to be durable")
    replicas = int(info.get("connected_slaves", "0"))
    if replicas >= _REPLICAS_TO_LOSE_ONE and config.get(_REPLICAS_MIN) == "0":
        yield StoreWarning(
            f"{_REPLICAS_MIN} is 0, so a primary that is cut off from its replicas takes orders",
            "set it to 1, and min-replicas-max-lag to 10",
        )
    if config.get("maxmemory") == "0":
        yield StoreWarning(
            "maxmemory is 0, so memory has no bound", "set it above the dirty watermark"
        )
