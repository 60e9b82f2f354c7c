"""Where API processes listen: on a port that they share, and each on one of its own."""

import socket
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from polyglot_persistence.api.protocol.server import listen, listen_together
from polyglot_persistence.config import Settings


class Doors(NamedTuple):
    """The listening sockets of one API process."""

    number: int
    """Which of the processes it is, from 1 on."""
    shared: socket.socket
    own: socket.socket | None
    """For its own metrics and health, which a shared port would give of any of the processes."""


def open_doors(settings: Settings) -> Sequence[Doors]:
    """Return the doors of every API process.

    Raises:
        ConfigurationError: a port is taken, or the address is none of this machine.
    """
    shared = listen_together(settings.api_host, settings.api_port, settings.api_processes)
    first = settings.api_process_port
    return [
        Doors(n + 1, one, listen(settings.api_host, first + n) if first else None)
        for n, one in enumerate(shared)
    ]


def close_doors(doors: Iterable[Doors]) -> None:
    """Close the sockets, in this process."""
    for one in doors:
        one.shared.close()
        if one.own is not None:
            one.own.close()
