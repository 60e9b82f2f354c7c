"""The composition root: which adapter stands behind which port, what starts and stops when.

Start: stores connect lazily, so a store that is away delays nothing but its own part; schema and
cache epoch are prepared in the background until that succeeds.

Stop, on SIGTERM or SIGINT:

```
  api      1. take no more requests, answer those under way   2. commit what is in flight
           3. end the background loops                        4. close the stores
  worker   1. finish the batch under way, acknowledge it      2. hand back what is not acknowledged
           3. index what waits in memory                      4. close the stores
```

Invariant: drivers are imported only when a deployment needs them.
"""

import asyncio
from collections.abc import Sequence
from functools import partial

from polyglot_persistence.bootstrap.doctor import Finding, examine
from polyglot_persistence.config import Settings
from polyglot_persistence.config.addresses.postgres import postgres_url
from polyglot_persistence.errors import ConfigurationError
from polyglot_persistence.processes.heartbeat import Parent
from polyglot_persistence.telemetry import set_up_logging

SUPERUSER_DSN = "POSTGRES_SUPERUSER_DSN"
"""No setting: only `polyglot migrate` is to have it."""

__all__ = ["Finding", "doctor", "migrate", "migrate_with_roles", "run_api", "run_worker"]


def run_api(settings: Settings, parent_fd: int | None) -> int:
    """Run the API, in `API_PROCESSES` processes, until it is stopped; return its exit code.

    It beats on the descriptor.

    Raises:
        ConfigurationError: a port is taken, or the address is none of this machine.
    """
    from polyglot_persistence.bootstrap.access import warn_of_strangers
    from polyglot_persistence.bootstrap.api import api_processes
    from polyglot_persistence.processes.prefork import run_several

    processes, parent = api_processes(settings), Parent(parent_fd)
    set_up_logging(settings.log_level, settings.log_format)
    warn_of_strangers(settings)
    if len(processes) == 1:
        return processes[0].run(parent)
    return run_several(processes, parent, stop_seconds=settings.api_stop_seconds)


def run_worker(settings: Settings, parent_fd: int | None) -> int:
    """Run a worker process until it is stopped; return its exit code.

    It beats on the descriptor, and announces there that it consumes.
    """
    from polyglot_persistence.bootstrap import process, worker

    parent = Parent(parent_fd)
    return process.run(
        settings,
        "polyglot-worker",
        partial(worker.work, parent),
        parent,
        stop_seconds=settings.shutdown_timeout_seconds,
    )


def migrate(settings: Settings) -> Sequence[str]:
    """Apply the migrations that are missing and return their names."""
    from polyglot_persistence.adapters.postgres.migrate import migrate as apply

    return asyncio.run(apply(settings.postgres_dsn))


def migrate_with_roles(settings: Settings, superuser_dsn: str) -> Sequence[str]:
    """Make the role that `POSTGRES_DSN` names and another one, which owns the schema; then migrate.

    Returns the names of the migrations applied.

    Raises:
        ConfigurationError: the superuser's DSN is none.
    """
    from polyglot_persistence.adapters.postgres.roles import migrate_with_roles

    try:
        url = postgres_url(superuser_dsn)
    except ValueError as error:
        raise ConfigurationError(f"{SUPERUSER_DSN}: {error}") from None
    return asyncio.run(migrate_with_roles(url, settings.postgres_dsn))


def doctor(settings: Settings) -> Sequence[Finding]:
    """Ask every store whether it is there and set so that every promise holds."""
    return asyncio.run(examine(settings))
