"""Checks the stores in the settings: what is wrong with each, and how to repair it."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from polyglot_persistence.bootstrap.stores import connect
from polyglot_persistence.config import Settings
from polyglot_persistence.flows.watch.health import Health, HealthFlow

_SETTING_OF = {
    "cache": "REDIS_ADDR",
    "queue": "RABBITMQ_URL",
    "record": "POSTGRES_DSN",
    "search": "ELASTICSEARCH_URL",
}

_AUTHORITY_OF = {
    "cache": "REDIS_CA_FILE",
    "queue": "RABBITMQ_CA_FILE",
    "record": "sslrootcert in POSTGRES_DSN",
    "search": "ELASTICSEARCH_CA_FILE",
}


class Finding(NamedTuple):
    """One line of `polyglot doctor`."""

    store: str
    level: Literal["PASS", "WARN", "FAIL"]
    detail: str
    fix: str


async def examine(settings: Settings) -> Sequence[Finding]:
    """Ping every store and return what was found."""
    stores = connect(settings)
    try:
        health = await HealthFlow(stores.pingable()).check()
    finally:
        await stores.close()
    return findings_of(health)


def findings_of(health: Health) -> Sequence[Finding]:
    """Return a finding for each store, and one for each warning of it."""
    findings = []
    for name, found in health.stores.items():
        if found.state is None:
            fix = found.remedy or f"start it, or correct {_SETTING_OF[name]}"
            if found.has_untrusted_certificate:
                fix = f"name the authority of its certificate: {_AUTHORITY_OF[name]}"
            findings.append(Finding(name, "FAIL", found.reason, fix))
            continue
        findings.append(Finding(name, "PASS", found.state.version, ""))
        findings += [Finding(name, "WARN", *warning) for warning in found.state.warnings]
    return findings
