"""Whether a Redis keeps what it has acknowledged: asked of the server, or said by a setting.

Invariant: unknown counts as not durable.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from polyglot_persistence.adapters.redis.connection import RedisConnection, ReplyError

_MAJOR_MIN: Final = 7
"""The scripts' flags (`#!lua flags=...`) and `SET ... NX GET` came with Redis 7.0."""

_DURABLE: Final = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
}
"""With these the reply to a write follows the fsync (redis.io, "Redis persistence")."""


class ServerFacts(NamedTuple):
    """What a server says about itself; empty where it does not say."""

    run_id: str
    version: str
    durable: bool
    warnings: tuple[str, ...]


async def ask(connection: RedisConnection, *, durable: bool | None) -> ServerFacts:
    """Ask a server who it is and whether it is durable; `durable` overrides its answer.

    A server that forbids INFO or CONFIG (managed ones do) is believed to be nothing in particular.
    """
    info_reply, config_reply = await connection.request(
        [
            ("INFO", "server"),
            ("CONFIG", "GET", *_DURABLE, "maxmemory", "maxmemory-policy"),
        ]
    )
    info = {} if isinstance(info_reply, ReplyError) else _info(info_reply.decode())
    config = {} if isinstance(config_reply, ReplyError) else _config(config_reply)
    known_durable = all(config.get(name) == value for name, value in _DURABLE.items())
    product = info.get("server_name", "redis").capitalize()
    version = info.get(f"{product.lower()}_version", info.get("redis_version", "unknown"))
    return ServerFacts(
        run_id=info.get("run_id", ""),
        version=f"{product} {version}",
        durable=known_durable if durable is None else durable,
        warnings=tuple(_warnings(config, info.get("redis_version", ""), durable=durable)),
    )


def _info(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+):(.*?)\r?$", text, re.MULTILINE))


def _config(reply: Sequence[bytes]) -> dict[str, str]:
    texts = [text.decode() for text in reply]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _warnings(config: dict[str, str], version: str, *, durable: bool | None) -> list[str]:
    warnings = []
    major = version.partition(".")[0]
    if major.isdigit() and int(major) < _MAJOR_MIN:
        warnings.append(f"Redis {version} is too old; {_MAJOR_MIN}.0 or later is needed")
    if not config:
        if durable is None:
            warnings.append(
                "CONFIG is forbidden, so it counts as not durable unless a setting says"
            )
        return warnings
    for name, wanted in _DURABLE.items():
        if config.get(name) != wanted:
            warnings.append(f"{name} is {config.get(name)}; set it to {wanted} to be durable")
    policy = config.get("maxmemory-policy", "")
    if policy.startswith("allkeys"):
        warnings.append(f"maxmemory-policy {policy} may evict dirty orders; set it to volatile-ttl")
    if config.get("maxmemory") == "0":
        warnings.append("maxmemory is 0, so memory has no bound; set it above the dirty watermark")
    return warnings
