"""Requests to a cluster of several nodes: one that does not answer is passed over for another.

The driver's node pool chooses the nodes in turn, and leaves one out for some seconds after a
failure. With a single node nothing here changes a request.
"""

import asyncio
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from elastic_transport import AsyncTransport, ConnectionTimeout, TransportApiResponse
from elastic_transport import ConnectionError as NoConnectionError

LEFT_OUT_SECONDS_MAX: Final = 5.0
"""How long a node that failed is left out; then one request tries it, and goes to another if it
fails again."""

_OF_THE_NODE: Final = {502, 503, 504}
"""Statuses of a node without a master, or of a proxy without a node: another node may answer."""


class Call(NamedTuple):
    """The request under way in this task."""

    deadline: float
    """On the event loop's clock."""
    is_repeatable: bool
    """Whether a second execution does no harm: a lost answer may follow a first one."""


CALL: Final[ContextVar[Call]] = ContextVar("call")


class NodesTransport(AsyncTransport):
    """Sends a repeatable request to as many nodes as there are until one answers.

    Each attempt but the last has half of the time that is left.
    """

    async def perform_request(  # type: ignore[override]  # with the options passed on unchanged
        self, method: str, target: str, **options: Any
    ) -> TransportApiResponse:
        """Return the answer of a node.

        Raises:
            elastic_transport.TransportError: of the last node that was tried.
        """
        call = CALL.get()
        left = len(self.node_pool) if call.is_repeatable else 1
        if len(self.node_pool) > 1:
            options["max_retries"] = 0
        while left > 1:
            left -= 1
            options["request_timeout"] = _seconds_until(call.deadline) / 2
            try:
                response = await super().perform_request(method, target, **options)
            except (NoConnectionError, ConnectionTimeout):
                continue
            if response.meta.status not in _OF_THE_NODE:
                return response
        if len(self.node_pool) > 1:  # else the caller's own deadline ends it
            options["request_timeout"] = _seconds_until(call.deadline)
        return await super().perform_request(method, target, **options)


def _seconds_until(deadline: float) -> float:
    seconds = deadline - asyncio.get_running_loop().time()
    if seconds <= 0:
        raise ConnectionTimeout("no time is left")
    return seconds
