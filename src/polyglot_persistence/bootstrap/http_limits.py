"""The bounds of the HTTP boundary: what the settings say, within what the machine allows."""

import resource

from polyglot_persistence.api.protocol.limits import HttpLimits
from polyglot_persistence.config import Settings
from polyglot_persistence.telemetry import logger

_log = logger("api")

OTHER_FILES = 96
"""Files of a process that are no client's: stores, the search index, logs, listeners, and
connections that are being refused."""
CONNECTIONS_MIN = 16


def http_limits(settings: Settings) -> HttpLimits:
    """Return the bounds for this process, and raise what it may open as far as it can.

    A connection is a file. Above the soft limit the kernel resets new ones without a word, health
    probes among them, so the bound on connections has to be below it, where they are answered 503.
    """
    limits = HttpLimits(
        connections_max=settings.http_connections_max,
        address_connections_max=settings.http_address_connections_max,
        head_bytes_max=settings.http_head_bytes_max,
        headers_max=settings.http_headers_max,
        framing_bytes_max=settings.http_framing_bytes_max,
        in_flight_bytes_max=settings.http_in_flight_bytes_max,
        idle_seconds_max=settings.http_idle_seconds_max,
        head_seconds_max=settings.http_head_seconds_max,
        body_patience_seconds=settings.http_body_patience_seconds,
        body_bytes_per_second_min=settings.http_body_bytes_per_second_min,
        request_seconds_max=settings.http_request_seconds_max,
        write_seconds_max=settings.http_write_seconds_max,
    )
    files = raise_files_max()
    room = max(CONNECTIONS_MIN, files - OTHER_FILES - settings.postgres_pool_size)
    connections_max = min(limits.connections_max, room)
    told = _log.info if connections_max == limits.connections_max else _log.warning
    told("connection_limit", connections_max=connections_max, files_max=files)
    return limits._replace(
        connections_max=connections_max,
        address_connections_max=min(limits.address_connections_max, connections_max),
    )


def raise_files_max() -> int:
    """Raise the soft limit of open files to the hard one; return what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # macOS has a hard limit that it does not grant
            return soft
    return 2**31 if hard == resource.RLIM_INFINITY else hard
