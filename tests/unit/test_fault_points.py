"""The points at which processes of the test build die are calls that the product makes."""

from typing import get_type_hints

from polyglot_persistence.bootstrap.stores import Stores
from polyglot_persistence.ports.queue import Consumer
from tests.fault.failing import MAY_BE_UNKNOWN, PORTS
from tests.fault.faults import API_CALLS, WORKER_CALLS


def test_every_point_is_a_call_of_a_port() -> None:
    """A renamed port or method would leave a fault that never happens."""
    ports = {**get_type_hints(Stores), "consumer": Consumer}
    assert set(PORTS) <= ports.keys()
    for point in (*API_CALLS, *WORKER_CALLS, *MAY_BE_UNKNOWN):
        port, _, method = point.partition(".")
        assert hasattr(ports[port], method), point
