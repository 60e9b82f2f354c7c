"""What stands in front of a process's HTTP servers, as the settings say it."""

from polyglot_persistence.api.protocol.front import Front
from polyglot_persistence.config import Settings
from polyglot_persistence.config.addresses import is_loopback


def front_of(settings: Settings) -> Front:
    """Return the front; on the loopback it answers only for names of the loopback, unless told."""
    hosts = settings.allowed_hosts
    if is_loopback(settings.api_host):
        hosts = (hosts or frozenset()) | {settings.api_host.lower()}
    return Front(
        hosts=hosts,
        origins=settings.trusted_origins,
        proxies=settings.trusted_proxies,
        prefix=settings.path_prefix,
    )
