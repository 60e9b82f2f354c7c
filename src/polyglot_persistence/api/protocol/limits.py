"""What one client may make the server keep, compute or wait for, before any route is chosen.

Each is a setting of the same name with `HTTP_` before it, where its reason is. Both ways to a route
share them, for they are enforced below both (`connection`).
"""

from typing import NamedTuple


class HttpLimits(NamedTuple):
    """Bounds of connections and of requests as bytes."""

    connections_max: int
    address_connections_max: int
    head_bytes_max: int
    headers_max: int
    framing_bytes_max: int
    in_flight_bytes_max: int
    idle_seconds_max: float
    head_seconds_max: float
    body_patience_seconds: float
    body_bytes_per_second_min: int
    request_seconds_max: float
    write_seconds_max: float
