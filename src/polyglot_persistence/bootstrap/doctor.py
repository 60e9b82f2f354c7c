"""What is wrong with the stores that the settings name, and how to mend it."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from polyglot_persistence.bootstrap.stores import connect
from polyglot_persistence.config import Settings
from polyglot_persistence.flows.watch.health import HealthFlow

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
    """What `polyglot doctor` found out about one store."""

    store: str
    level: Literal["PASS", "WARN", "FAIL"]
    detail: str
    fix: str


async def examine(settings: Settings) -> Sequence[Finding]:
    """Ping every store; a warning of it is a finding of its own."""
    stores = connect(settings)
    try:
        health = await HealthFlow(stores.pingable()).check()
    finally:
        await stores.close()
    findings = []
    for name, found in health.stores.items():
        if found.state is None:
            error = (found.error or "no answer").removesuffix(f"; {found.remedy}")
            fix = found.remedy or f"start it, or correct {_SETTING_OF[name]}"
            if "CERTIFICATE_VERIFY_FAILED" in error:
                fix = f"name the authority of its certificate: {_AUTHORITY_OF[name]}"
            findings.append(Finding(name, "FAIL", error, fix))
            continue
        findings.append(Finding(name, "PASS", found.state.version, ""))
        for warning in found.state.warnings:
            detail, _, fix = warning.partition("; ")
            findings.append(Finding(name, "WARN", detail, fix))
    return findings
