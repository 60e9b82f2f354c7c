"""How many nodes hold the queue, asked of the management API: AMQP has no such question.

A quorum queue has its members on the nodes that were there when it was declared. A node that joins
later gets none by itself, unless the cluster reconciles (`quorum_queue.continuous_membership_
reconciliation`, RabbitMQ 3.13 or later).

Invariant: the queue counts as there whether or not the management API answers.
"""

import asyncio
import base64
import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import quote

import msgspec

from polyglot_persistence.config.addresses.rabbitmq import ManagementAddress
from polyglot_persistence.ports.state import StoreWarning
from polyglot_persistence.telemetry import QUEUE_MEMBERS, logger

LOOK_SECONDS: Final = 60.0
"""Time between two looks: they serve an alert, and cost the broker more than a ping does."""

ANSWER_SECONDS_MAX: Final = 1.0
"""Of all nodes together; a ping has 2 s for everything."""

ANSWER_BYTES_MAX: Final = 1024 * 1024
"""Far more than the names of all nodes."""

_PIECE_BYTES: Final = 65_536

MEMBERS_MIN: Final = 3
"""What RabbitMQ gives a queue by default if the cluster has as many nodes."""

_log = logger("queue")


class _Node(msgspec.Struct):
    name: str
    running: bool = False


class _Queue(msgspec.Struct):
    members: list[str] = []
    online: list[str] = []


class _Seen(NamedTuple):
    nodes: Sequence[_Node]
    queue: _Queue


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, since the login would go with it."""

    def redirect_request(self, *_: object) -> None:
        """Have it reported as an error."""


class Members:
    """Looks at the queue's members now and then; its own thread waits for the answer."""

    def __init__(
        self, address: ManagementAddress, queue: str, authority: ssl.SSLContext | None
    ) -> None:
        self._address = address
        self._queue = queue
        # No proxy of the environment: the address is that of a node.
        handlers: list[urllib.request.BaseHandler] = [
            urllib.request.ProxyHandler({}),
            _NoRedirect(),
        ]
        if authority is not None:
            handlers.append(urllib.request.HTTPSHandler(context=authority))
        self._opener = urllib.request.build_opener(*handlers)
        self._looked_at = float("-inf")
        self._warnings: tuple[StoreWarning, ...] = ()

    async def warnings(self) -> tuple[StoreWarning, ...]:
        """Return what an operator should do, as of the last minute; sets the gauge."""
        if time.monotonic() - self._looked_at < LOOK_SECONDS:
            return self._warnings
        self._looked_at = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                seen = await asyncio.to_thread(self._look)
        except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
            _log.warning("queue_members_unknown", error=str(error))
            QUEUE_MEMBERS.clear()  # unknown is no number
            self._warnings = (_unknown(error),)
        else:
            self._warnings = tuple(self._judged(seen))
        return self._warnings

    def _judged(self, seen: _Seen) -> Sequence[StoreWarning]:
        """Return a warning for each kind of missing member."""
        members, online = seen.queue.members, seen.queue.online
        if not members:  # the API has them some seconds after the declaration
            QUEUE_MEMBERS.clear()
            self._looked_at = float("-inf")
            return [_NOT_YET]
        wanted = min(len(seen.nodes), MEMBERS_MIN)
        QUEUE_MEMBERS.labels("wanted").set(wanted)
        QUEUE_MEMBERS.labels("online").set(len(online))
        warnings = []
        if len(members) < wanted:
            others = [node.name for node in seen.nodes if node.name not in members]
            commands = [
                f"rabbitmq-queues grow {name} all --vhost-pattern '^{self._address.virtual_host}$' "
                f"--queue-pattern '^{self._queue}$'"
                for name in others[: wanted - len(members)]
            ]
            warnings.append(
                StoreWarning(
                    f"{self._queue} has {len(members)} of {wanted} members ({', '.join(members)}): "
                    f"it was declared before the other nodes joined",
                    f"run {' && '.join(commands)}",
                )
            )
        if missing := [name for name in members if name not in online]:
            warnings.append(
                StoreWarning(
                    f"{self._queue}: members without a running node: {', '.join(missing)}",
                    "start the nodes, or remove them: rabbitmqctl forget_cluster_node",
                )
            )
        return warnings

    def _look(self) -> _Seen:
        """Return the answers of the first node that gives them; runs in a thread.

        Raises:
            OSError: none does.
            ValueError: an answer is not the API's.
        """
        path = f"queues/{quote(self._address.virtual_host, safe='')}/{quote(self._queue, safe='')}"
        errors: list[OSError] = []
        share_seconds = ANSWER_SECONDS_MAX / len(self._address.urls)
        for url in self._address.urls:
            try:
                nodes = self._get(f"{url}/api/nodes?columns=name,running", share_seconds)
                queue = self._get(f"{url}/api/{path}?columns=members,online", share_seconds)
            except urllib.error.HTTPError:  # an answer: the others give the same
                raise
            except OSError as error:
                errors.append(error)
            else:
                return _Seen(
                    msgspec.json.decode(nodes, type=list[_Node]),
                    msgspec.json.decode(queue, type=_Queue),
                )
        raise errors[-1]

    def _get(self, url: str, seconds_max: float) -> bytes:
        login = f"{self._address.username}:{self._address.password}".encode()
        request = urllib.request.Request(  # noqa: S310  http or https: the settings check it
            url, headers={"Authorization": f"Basic {base64.b64encode(login).decode()}"}
        )
        ends_at = time.monotonic() + ANSWER_SECONDS_MAX
        body = bytearray()
        try:
            with self._opener.open(request, timeout=seconds_max) as response:
                while piece := response.read1(_PIECE_BYTES):
                    body += piece
                    if len(body) > ANSWER_BYTES_MAX or time.monotonic() > ends_at:
                        raise OSError("its answer is too long")
        except http.client.HTTPException as error:
            raise OSError(f"no answer in HTTP: {error!r}") from error
        return bytes(body)


_NOT_YET = StoreWarning(
    "members of the queue are not known yet: it was declared just now",
    "run polyglot doctor again",
)

UNSEEN = StoreWarning(
    "members of the queue are not checked: AMQP does not show them",
    "set RABBITMQ_MANAGEMENT_URL",
)
"""For a broker of several nodes."""


def _unknown(error: Exception) -> StoreWarning:
    return StoreWarning(
        f"members of the queue are unknown: the management API: {error!s}",
        "correct RABBITMQ_MANAGEMENT_URL; its user needs the tag monitoring",
    )
