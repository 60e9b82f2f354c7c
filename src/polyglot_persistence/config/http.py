"""The settings of the HTTP boundary.

What stands in front of it, and what a client may make an API process keep or wait for.

They hold before any route is chosen, and for whatever answers; the bounds of bodies by route are
among the other settings.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from polyglot_persistence.config.fields import count, seconds, setting
from polyglot_persistence.config.front import (
    Network,
    parse_hosts,
    parse_networks,
    parse_origins,
    parse_prefix,
)
from polyglot_persistence.domain.access import Rate, parse_rate
from polyglot_persistence.domain.origin import Origin

_KIB = 1024


@dataclasses.dataclass(frozen=True)
class FrontSettings:
    """What stands in front of the API."""

    allowed_hosts: frozenset[str] | None = setting(
        "auto",
        parse_hosts,
        "Hosts that requests may address, besides those of the loopback and the listening "
        "address; others: 421. auto: any host, or no further one if `API_HOST` is on the "
        "loopback.",
        "names with white space or commas in between, or auto",
    )
    trusted_origins: frozenset[Origin] = setting(
        "none",
        parse_origins,
        "Origins whose pages may call the API from a browser: they get CORS headers and may place "
        "orders. The API's own pages need no entry.",
        "origins like https://shop.example, or none",
    )
    trusted_proxies: Sequence[Network] = setting(
        "none",
        parse_networks,
        "Proxies whose `Forwarded` and `X-Forwarded-For`, `-Proto`, `-Host`, `-Prefix` headers "
        "are used; those of others are ignored.",
        "addresses or networks, like 127.0.0.1 10.0.0.0/8, or none",
    )
    path_prefix: str = setting(
        "none",
        parse_prefix,
        "Path under which a proxy publishes the API, whether or not the proxy strips it. "
        "`Location`, `Link` and `next` begin with it.",
        "a path like /polyglot, or none",
    )


@dataclasses.dataclass(frozen=True)
class HttpLimits:
    """Bounds of connections and of requests as bytes; each variable begins with `HTTP_`."""

    PREFIX: ClassVar = "HTTP_"

    connections_max: int = count(
        4_096,
        (16, 1_000_000),
        "Maximum connections per API process; above it: 503. The limit of open files "
        "(RLIMIT_NOFILE, which is raised to its hard limit) may lower it.",
    )
    address_connections_max: int = count(
        1_024,
        (1, 1_000_000),
        "Maximum connections from one network address (IPv6: one /64), so that one client cannot "
        "take all; above it: 503. A proxy counts as one address.",
    )
    head_bytes_max: int = count(
        64 * _KIB,
        (1_024, 1_048_576),
        "Maximum size of the request line and headers; above it: 431.",
    )
    headers_max: int = count(
        100,
        (10, 1_000),
        "Maximum number of headers of a request; above it: 431. Browsers and proxies together "
        "send a third of the default.",
    )
    framing_bytes_max: int = count(
        16 * _KIB,
        (256, 1_048_576),
        "Maximum bytes between two parts of a chunked body's content (extensions and trailers, "
        "which are dropped); above it: 400.",
    )
    in_flight_bytes_max: int = count(
        32 * 1_024 * _KIB,
        (64 * _KIB, 65_536 * 1_024 * _KIB),
        "Maximum bytes of heads and bodies that one API process holds for all clients together; "
        "above it, the oldest incomplete requests end with 408.",
    )
    idle_seconds_max: float = seconds(
        30,
        (1, 3_600),
        "Maximum time that a connection stays open after an answer without a new request.",
    )
    head_seconds_max: float = seconds(
        10,
        (0.1, 600),
        "Maximum time from the first byte of a request to the end of its headers; then: 408. Also "
        "the maximum time until a new connection sends its first byte.",
    )
    body_patience_seconds: float = seconds(
        20,
        (0.1, 600),
        "Maximum total time that a body may stall; then: 408. Received bytes earn time back.",
    )
    body_bytes_per_second_min: int = count(
        256,
        (1, 1_048_576),
        "Bytes of a body that earn one second of stall time back. A slow mobile link sends 1,000 "
        "per second; a connection that is held open on purpose sends one.",
    )
    request_seconds_max: float = seconds(
        86_400,
        (1, 31_536_000),
        "Maximum total time for a body, however steadily it arrives; then: 408. An import can be "
        "resumed.",
    )
    unauthenticated_rate_limit: Rate | None = setting(
        "60/60",
        lambda text: None if text == "none" else parse_rate(text),
        "Maximum rate of 401 answers of one API process to one network address (IPv6: one /64); "
        "above it: 429. Requests with a valid key are neither counted nor refused.",
        "requests/seconds, like 60/60, or none",
    )
    write_seconds_max: float = seconds(
        60,
        (1, 3_600),
        "Maximum time that an answer waits for the client to read; then the connection is closed.",
    )
