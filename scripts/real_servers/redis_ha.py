"""A Redis with a replica, and three Sentinels that promote it when the primary is gone.

Invariant: a configuration is written once; Redis and Sentinel rewrite it, so each server starts in
the role that it had last. A primary that was killed and replaced starts as one, and is made a
replica by the Sentinels within some ten seconds.
"""

from real_servers.kinds import Redis
from real_servers.machine import ServerError
from real_servers.server import Group, Server

PRIMARY = "polyglot"
"""The name by which the Sentinels know the primary, whichever server it is."""

USER, PASSWORD = "app", "secret"
"""The clients' login. Sentinels and replica have another, so a test can shut them out alone."""

FAILOVER_MS = 6_000
"""A busy machine needs more than three seconds. A failed attempt is repeated after twice this."""


class RedisA(Redis):
    """The server that is the primary at first."""

    name = "redis-a"
    variable = "REDIS_A"
    started_by_name_only = True

    def prepare(self) -> None:
        path = self.data / "redis.conf"
        if not path.exists():
            super().prepare()
            with path.open("a") as file:
                file.writelines(f"{line}\n" for line in self.role())

    def role(self) -> list[str]:
        """Return the lines of the first configuration that make it primary or replica."""
        return ["repl-diskless-sync-delay 0", f"user {USER} on >{PASSWORD} ~* &* +@all"]

    def settings(self) -> dict[str, str]:
        return {f"{self.variable}_ADDR": f"127.0.0.1:{self.port()}"}


class RedisB(RedisA):
    """The server that is the replica at first."""

    name = "redis-b"
    variable = "REDIS_B"

    def role(self) -> list[str]:
        return [*super().role(), f"replicaof 127.0.0.1 {first_port()}"]


class SentinelA(RedisA):
    """One Sentinel; two of three promote."""

    name = "redis-sentinel-a"
    variable = "REDIS_SENTINEL_A"

    def prepare(self) -> None:
        path = self.data / "sentinel.conf"
        if not path.exists():
            path.write_text(
                f"port {self.port()}\nbind 127.0.0.1\ndaemonize no\ndir {self.data}\n"
                f"sentinel monitor {PRIMARY} 127.0.0.1 {first_port()} 2\n"
                f"sentinel down-after-milliseconds {PRIMARY} 1500\n"
                f"sentinel failover-timeout {PRIMARY} {FAILOVER_MS}\n"
            )

    def commands(self) -> list[list[str]]:
        return [[self.program, str(self.data / "sentinel.conf"), "--sentinel"]]


class SentinelB(SentinelA):
    """One more."""

    name = "redis-sentinel-b"
    variable = "REDIS_SENTINEL_B"


class SentinelC(SentinelA):
    """One more."""

    name = "redis-sentinel-c"
    variable = "REDIS_SENTINEL_C"


SENTINELS: tuple[type[Server], ...] = (SentinelA, SentinelB, SentinelC)


def first_port() -> int:
    """Return the port of the server that is the primary at first."""
    try:
        return RedisA().port()
    except FileNotFoundError:
        raise ServerError(f"start {RedisA.name} first") from None


def settings() -> dict[str, str]:
    """Return the setting that reaches whichever server is the primary."""
    sentinels = ",".join(f"127.0.0.1:{kind().port()}" for kind in SENTINELS)
    return {"REDIS_ADDR": f"redis+sentinel://{USER}:{PASSWORD}@{sentinels}/{PRIMARY}"}


REDIS_HA = Group((RedisA, RedisB, *SENTINELS), settings)
