"""Which server is the primary, as its Sentinels know.

They learn of a failover one after the other, within about two seconds. So all of them are asked at
once, and the newest configuration counts.

Invariant: an answer is used only if it is no older than the last one used; or if a majority of the
listed Sentinels has answered, and no other one knows better in time. So a process never returns to
a former primary that a lonely Sentinel still names, or several that have not heard of the failover
yet. After a majority lost its memory, the process follows it nevertheless.
"""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from polyglot_persistence.adapters.redis.connection import RedisConnection, ReplyError
from polyglot_persistence.config.addresses.hosts import Host
from polyglot_persistence.config.addresses.redis import RedisAddress
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.state import StoreWarning

_REPLY_BYTES_MAX: Final = 1024 * 1024
_SENTINELS_MIN: Final = 3
"""With fewer the loss of one leaves no majority of them, which a failover needs."""


class View(NamedTuple):
    """What one Sentinel knows of the primary."""

    primary: Host
    config_epoch: int
    """Greater after each failover."""
    sentinels: int | None
    """Number of Sentinels, itself included; None if it does not say."""
    no_quorum: str
    """Why the Sentinels could not promote a replica now; empty if they could."""


class Views(NamedTuple):
    """What the Sentinels know that answered; and why the others did not, if all were awaited."""

    newest: View
    answers: int
    errors: Mapping[Host, str]

    def warnings(self) -> tuple[StoreWarning, ...]:
        """Return what an operator should repair."""
        found = [
            StoreWarning(f"Sentinel {host} does not answer: {reason}", "start it, or correct it")
            for host, reason in self.errors.items()
        ]
        if self.newest.no_quorum:
            found.append(StoreWarning(self.newest.no_quorum, "start the other Sentinels"))
        elif self.newest.sentinels is not None and self.newest.sentinels < _SENTINELS_MIN:
            found.append(
                StoreWarning(
                    f"{self.newest.sentinels} Sentinels cannot promote once one of them is lost",
                    f"run {_SENTINELS_MIN} or more, on different machines",
                )
            )
        return tuple(found)


class Sentinels:
    """The Sentinels of one address; each question takes new connections."""

    def __init__(
        self, address: RedisAddress, tls: ssl.SSLContext | None, *, timeout_seconds: float
    ) -> None:
        self._address = address
        self._tls = tls
        self._timeout_seconds = timeout_seconds
        self._config_epoch = 0

    async def ask(self, *, every: bool = False) -> Views:
        """Return the views of a majority, or of all that answer in time; `every`: of the latter.

        Raises:
            UnavailableError: none answers, or too few, and those know an older primary.
        """
        hosts = self._address.hosts
        majority = len(hosts) // 2 + 1
        asked = {asyncio.create_task(self._ask(host)): host for host in hosts}
        views: list[View] = []
        errors: dict[Host, str] = {}
        try:
            waiting = set(asked)
            while waiting and (every or len(views) < majority or self._is_older(views)):
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if (error := task.exception()) is None:
                        views.append(task.result())
                    else:
                        errors[asked[task]] = str(error) or type(error).__name__
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        if not views:
            reasons = ", ".join(f"{host}: {reason}" for host, reason in errors.items())
            raise UnavailableError(f"no Sentinel names the primary: {reasons}")
        newest = _newest(views)
        if self._is_older(views) and len(views) < majority:
            raise UnavailableError(
                f"{len(views)} of {len(hosts)} Sentinels answer, and know no present primary"
            )
        self._config_epoch = newest.config_epoch
        return Views(newest, len(views), errors)

    def _is_older(self, views: Sequence[View]) -> bool:
        return _newest(views).config_epoch < self._config_epoch

    async def _ask(self, host: Host) -> View:
        connection = RedisConnection(
            str(host), timeout_seconds=self._timeout_seconds, in_flight_bytes_max=_REPLY_BYTES_MAX
        )
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await loop.create_connection(
                    lambda: connection, host.name, host.port, ssl=self._tls
                )
                return await self._view(connection)
        except TimeoutError as error:
            raise UnavailableError(f"no answer within {self._timeout_seconds:g} s") from error
        finally:
            connection.close("answered")

    async def _view(self, connection: RedisConnection) -> View:
        address = self._address
        if address.sentinel_password is not None:
            user = [address.sentinel_username] if address.sentinel_username else []
            await connection.execute("AUTH", *user, address.sentinel_password)
        name = str(address.name)
        place, facts, quorum = await connection.request(
            [
                ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name),
                ("SENTINEL", "MASTER", name),
                ("SENTINEL", "CKQUORUM", name),
            ]
        )
        if isinstance(place, ReplyError):
            raise place
        if place is None:
            raise UnavailableError(f"it knows no primary of the name {name}")
        known = _facts(facts)
        others = known.get("num-other-sentinels")
        return View(
            Host(place[0].decode(), int(place[1])),
            int(known.get("config-epoch", "0")),
            None if others is None else int(others) + 1,
            str(quorum) if isinstance(quorum, ReplyError) and quorum.code == "NOQUORUM" else "",
        )


def _newest(views: Sequence[View]) -> View:
    return max(views, key=lambda view: view.config_epoch)


def _facts(reply: Any) -> dict[str, str]:
    """Return what a Sentinel says of the primary; nothing if a role forbids it to say more."""
    if isinstance(reply, ReplyError):
        return {}
    texts = [text.decode() for text in reply]
    return dict(zip(texts[::2], texts[1::2], strict=True))
