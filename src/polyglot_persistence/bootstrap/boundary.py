"""The HTTP boundary of a process: what the settings say, within what the machine allows."""

import resource
from dataclasses import replace

from polyglot_persistence.api.protocol.front import Front
from polyglot_persistence.config import Settings
from polyglot_persistence.config.addresses.listening import is_loopback
from polyglot_persistence.config.http import HttpLimits
from polyglot_persistence.telemetry import logger

_log = logger("api")

OTHER_FILES = 96
"""Files of a process that are no client's: stores, the search index, logs, listeners, and
connections that are being refused."""
CONNECTIONS_MIN = 16


def front_of(settings: Settings) -> Front:
    """Return the front; by default a process on the loopback answers only for its names."""
    front = settings.front
    hosts = front.allowed_hosts
    if is_loopback(settings.api_host):
        hosts = (hosts or frozenset()) | {settings.api_host.lower()}
    return Front(
        hosts=hosts,
        origins=front.trusted_origins,
        proxies=front.trusted_proxies,
        prefix=front.path_prefix,
    )


def http_limits(settings: Settings) -> HttpLimits:
    """Return the bounds for this process, and raise what it may open as far as it can.

    A connection is a file. Above the soft limit the kernel resets new ones without a word, health
    probes among them, so the bound on connections has to be below it, where they are answered 503.
    """
    limits = settings.http
    files = raise_files_max()
    room = max(CONNECTIONS_MIN, files - OTHER_FILES - settings.postgres_pool_size)
    connections_max = min(limits.connections_max, room)
    log = _log.info if connections_max == limits.connections_max else _log.warning
    log("connection_limit", connections_max=connections_max, files_max=files)
    return replace(
        limits,
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
