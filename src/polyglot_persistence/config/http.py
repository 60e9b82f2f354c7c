"""The settings of the HTTP boundary.

What stands in front of it, and what a client may make an API process keep or wait for.

They hold before any route is chosen, and for whatever answers; the bounds of bodies by route are
among the other settings.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from polyglot_persistence.config.fields import count as _count
from polyglot_persistence.config.fields import seconds as _seconds
from polyglot_persistence.config.fields import setting as _setting
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

    allowed_hosts: frozenset[str] | None = _setting(
        "auto",
        parse_hosts,
        "Hosts that requests may be for, beside those of the loopback and the address itself; "
        "another one: 421. auto: any, but on the loopback (`API_HOST`) none.",
        "names with white space or commas in between, or auto",
    )
    trusted_origins: frozenset[Origin] = _setting(
        "none",
        parse_origins,
        "Origins whose pages may call the API from a browser: they get CORS headers, and may place "
        "orders. Pages that the API serves itself need no entry.",
        "origins like https://shop.example, or none",
    )
    trusted_proxies: Sequence[Network] = _setting(
        "none",
        parse_networks,
        "Proxies whose `Forwarded` and `X-Forwarded-For`, `-Proto`, `-Host`, `-Prefix` are "
        "believed; of any other they are ignored.",
        "addresses or networks, like 127.0.0.1 10.0.0.0/8, or none",
    )
    path_prefix: str = _setting(
        "none",
        parse_prefix,
        "Path below which a proxy publishes the API, whether or not it strips it: `Location`, "
        "`Link` and `next` begin with it.",
        "a path like /polyglot, or none",
    )


@dataclasses.dataclass(frozen=True)
class HttpLimits:
    """Bounds of connections and of requests as bytes; each variable begins with `HTTP_`."""

    PREFIX: ClassVar = "HTTP_"

    connections_max: int = _count(
        4_096,
        16,
        1_000_000,
        "Most connections of one API process; above it: 503. Fewer if the process may open fewer "
        "files (RLIMIT_NOFILE, which is raised to its hard limit).",
    )
    address_connections_max: int = _count(
        1_024,
        1,
        1_000_000,
        "Most of them from one network address (of IPv6: from one /64), so that one client cannot "
        "take all; above it: 503. Behind a proxy, as many as the proxy opens.",
    )
    head_bytes_max: int = _count(
        64 * _KIB, 1_024, 1_048_576, "Largest request line with headers; above it: 431."
    )
    headers_max: int = _count(
        100,
        10,
        1_000,
        "Most headers of a request; above it: 431. Browsers and proxies together send a third.",
    )
    framing_bytes_max: int = _count(
        16 * _KIB,
        256,
        1_048_576,
        "Most bytes of a chunked body between two of its content (extensions, trailers; all are "
        "dropped); above it: 400.",
    )
    in_flight_bytes_max: int = _count(
        32 * 1_024 * _KIB,
        64 * _KIB,
        65_536 * 1_024 * _KIB,
        "Most bytes of heads and bodies that one API process keeps for all clients together; above "
        "it, those that have been coming for the longest end with 408.",
    )
    idle_seconds_max: float = _seconds(
        30, 1, 3_600, "Longest a connection stays open after an answer without a new request."
    )
    head_seconds_max: float = _seconds(
        10,
        0.1,
        600,
        "Longest from the first byte of a request to the end of its headers; then: 408. Also "
        "longest for a new connection to send anything.",
    )
    body_patience_seconds: float = _seconds(
        20,
        0.1,
        600,
        "How long a body may stand still in all; then: 408. What arrives wins time back.",
    )
    body_bytes_per_second_min: int = _count(
        256,
        1,
        1_048_576,
        "So many bytes of a body win a second of patience back. A slow mobile link brings 1,000 a "
        "second, a connection that is held open on purpose one.",
    )
    request_seconds_max: float = _seconds(
        86_400,
        1,
        31_536_000,
        "Longest a body takes in all, however steadily it comes; then: 408. An import can be "
        "resumed.",
    )
    unauthenticated_rate_limit: Rate | None = _setting(
        "60/60",
        lambda text: None if text == "none" else parse_rate(text),
        "Most requests without a valid API key, where one is needed, that one API process answers "
        "401 to one network address (of IPv6: to one /64); above it: 429. Requests with a valid "
        "key are not counted, and never refused for it.",
        "requests/seconds, like 60/60, or none",
    )
    write_seconds_max: float = _seconds(
        60, 1, 3_600, "Longest an answer waits for a client to read on; then it is cut off."
    )
