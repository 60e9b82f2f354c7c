"""The embedded deployment: both servers, the API and a worker, started and stopped as one.

```
  start   lock the directory ── PostgreSQL ─┬── API ────┬── ready: one line printed
                             └─ Valkey ─────┴── worker ─┘
  keep    what ends unasked or hangs is started again, see processes/supervision.py
  stop    API ── worker ── PostgreSQL ── Valkey, each after the end of the one before
```

Invariant: only this process receives a Ctrl-C; its children have sessions of their own. When it is
killed, the kernel asks them to stop (Linux), and the next start waits for them.
"""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from polyglot_persistence import telemetry
from polyglot_persistence.embedded.addresses import write_addresses
from polyglot_persistence.embedded.child import Child, wait_until
from polyglot_persistence.embedded.data_directory import DataDirectory
from polyglot_persistence.embedded.directory import Directory
from polyglot_persistence.embedded.handed_keys import SETTING as KEYS_SETTING
from polyglot_persistence.embedded.handed_keys import HandedKeys
from polyglot_persistence.embedded.identity import SAME
from polyglot_persistence.embedded.operator_key import FILE as OPERATOR_KEY_FILE
from polyglot_persistence.embedded.operator_key import operator_key
from polyglot_persistence.embedded.postgres import WORKER_ROLE, EmbeddedPostgres, new_password
from polyglot_persistence.embedded.programs import (
    SEARCH,
    Program,
    migrate,
    program_identity,
)
from polyglot_persistence.embedded.server import answer_of
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from polyglot_persistence.errors import ConfigurationError
from polyglot_persistence.processes.supervision import LOOK_SECONDS, Supervision
from polyglot_persistence.runtime.until import until

READY_TIMEOUT_SECONDS = 60.0
"""From the start of the API until it is ready; the stores answer by then."""

DEGRADED_SECONDS = 15.0
"""How long a store may be missing before the degraded system counts as ready."""

SHUTDOWN_TIMEOUT_SECONDS = 20.0
SHUTDOWN_MARGIN_SECONDS = 10.0
"""What a process is given beyond its own deadline before it is killed."""

WATCH_SECONDS = 0.1
"""Between two looks at whether a service still runs."""

Companion = Callable[[str], Coroutine[None, None, None]]
"""A coroutine that runs beside the ready system and gets its URL."""

_log = telemetry.logger("up")


class _Service(Protocol):
    """A bundled server or a process of ours."""

    name: str
    child: Child

    async def start(self) -> None: ...

    async def is_alive(self) -> bool: ...


async def up(
    *,
    host: str,
    port: int,
    data_dir: Path,
    shutdown_timeout_seconds: float = SHUTDOWN_TIMEOUT_SECONDS,
    companion: Companion | None = None,
) -> None:
    """Run the whole system until SIGTERM, SIGINT or SIGHUP; then stop it in order and return.

    Once a search is answered and an order is persisted at once, `ready: URL` is printed to stdout;
    all logs go to stderr. The API and the worker are given `shutdown_timeout_seconds`, and some
    more, to stop. From then on `companion` runs with the URL; it is cancelled before the system
    stops.

    Raises:
        ConfigurationError: if the directory is in use, the port is taken, or a part does not start.
    """
    stopping = _on_signals()
    directory = DataDirectory(data_dir)
    await directory.lock()
    try:
        deployment = _Deployment(
            host, port, directory.files(), shutdown_timeout_seconds, companion or _no_company
        )
        try:
            await until(deployment.run(), stopping)
        finally:
            _log.info("stopping")
            await deployment.stop()
            _log.info("stopped")
    finally:
        directory.unlock()


class _Deployment:
    """The four services and their order."""

    def __init__(
        self,
        host: str,
        port: int,
        files: Directory,
        shutdown_timeout_seconds: float,
        companion: Companion,
    ) -> None:
        self._companion = companion
        self._host = host
        self._port = port
        self._files = files
        self._makes_key = not (os.environ.get("API_KEYS") or os.environ.get("API_KEYS_FILE"))
        self._degraded_since: float | None = None
        self._postgres = EmbeddedPostgres(files.path / "postgres")
        self._valkey = EmbeddedValkey(files.path / "valkey")
        self._worker_password = new_password()
        self._identity = SAME
        self._keys: HandedKeys | None = None
        programs = (
            files,
            lambda: self._identity,
            self._environment,
            shutdown_timeout_seconds + SHUTDOWN_MARGIN_SECONDS,
        )
        self._api = Program("api", *programs)
        self._worker = Program("worker", *programs)

    async def run(self) -> None:
        """Start everything, say so, and keep it running; it returns only by an error."""
        for program in (self._api, self._worker):
            await program.child.reap()
        self._identity = program_identity(self._files, self._port)  # nobody writes there any more
        self._hand_keys_over()
        _refuse_taken_port(self._host, self._port)
        await _all(self._start_record(), self._valkey.start())
        _log.info("servers_started", postgres_pid=self._postgres.pid, valkey_pid=self._valkey.pid)
        write_addresses(self._files, self._addresses())
        await _all(self._run_programs(), self._keep_keys())

    async def _run_programs(self) -> None:
        await _all(self._worker.start(), self._api.start())
        await self._wait_until_ready()
        url = f"http://{_url_host(self._host)}:{self._port}"
        _announce(f"ready: {url}", url)
        self._tell_operators(url)
        services = (self._postgres, self._valkey, self._api, self._worker)
        await _all(*(_keep(one) for one in services), self._companion(url))

    def _hand_keys_over(self) -> None:
        """Copy the file of API keys for API and worker, if they are another user than this one."""
        keys = os.environ.get(KEYS_SETTING)
        if keys and self._identity != SAME:
            self._keys = HandedKeys(Path(keys), self._files, self._identity.gid)
            self._keys.begin()
            self._identity = self._identity.reading(self._keys.directory)

    async def _keep_keys(self) -> None:
        if self._keys is not None:
            await self._keys.keep()

    async def _start_record(self) -> None:
        """Start PostgreSQL and bring schema and roles up to date before they are used."""
        await self._postgres.start()
        await migrate(
            self._files,
            {
                **_environment_without(["POSTGRES_DSN", "API_KEYS"]),
                "POSTGRES_DSN": self._worker_dsn(),
                "POSTGRES_SUPERUSER_DSN": self._postgres.dsn,
            },
        )

    async def stop(self) -> None:
        """Stop whatever runs, in order; the fault of one does not keep the others running."""
        async with contextlib.AsyncExitStack() as stack:
            for service in (self._valkey, self._postgres, self._worker, self._api):
                stack.push_async_callback(service.stop)  # the last one pushed is stopped first

    async def _wait_until_ready(self) -> None:
        ready = await wait_until(self._ready_or_ended, READY_TIMEOUT_SECONDS)
        for program in (self._api, self._worker):
            if not program.child.running:
                how = program.child.exit_text()
                raise ConfigurationError(
                    f"the {program.name} process {how}; its log above says why"
                )
        if not ready:  # asked once: of several API processes another one may answer next
            raise ConfigurationError(
                f"the API was not ready in {READY_TIMEOUT_SECONDS:.0f} s; its log above says why"
            )

    async def _ready_or_ended(self) -> bool:
        return not (self._api.child.running and self._worker.child.running) or await self._ready()

    async def _ready(self) -> bool:
        """Whether orders are accepted and persisted at once, and searches answered.

        A system that stays degraded is ready after a while; its health says what is missing.
        """
        host = _url_host(self._host)
        request = f"GET /health/ready HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        answer = await answer_of(
            asyncio.open_connection(host.strip("[]"), self._port), request.encode()
        )
        if not answer.startswith(b"HTTP/1.1 200 "):
            return False
        if b'"mode":"normal"' in answer and self._worker.is_ready():
            return True
        now = asyncio.get_running_loop().time()
        self._degraded_since = self._degraded_since or now
        return now - self._degraded_since > DEGRADED_SECONDS

    def _addresses(self) -> Mapping[str, str]:
        """Return the settings that name the stores; known once they have been started."""
        return {
            "POSTGRES_DSN": self._worker_dsn(),
            "REDIS_ADDR": self._valkey.url,
            "RABBITMQ_URL": self._valkey.url,
            "ELASTICSEARCH_URL": f"tantivy://{quote(str(self._files.path / SEARCH))}",
        }

    def _worker_dsn(self) -> str:
        return self._postgres.dsn_of(WORKER_ROLE, self._worker_password)

    def _operators(self) -> Mapping[str, str]:
        """Return the settings that let this deployment's owner operate it.

        None if there are API keys already: then operators have theirs.
        """
        if not self._makes_key:
            return {}
        _, key = operator_key(self._files)
        return {
            "API_KEYS": key.line,
            "ANONYMOUS_SCOPES": os.environ.get("ANONYMOUS_SCOPES") or "read,write",
        }

    def _tell_operators(self, url: str) -> None:
        """Log where the key is; on a terminal, also print a link that opens the page with it."""
        if not self._makes_key:
            return
        _log.info("operator_key", file=str(self._files.path / OPERATOR_KEY_FILE))
        if sys.stdout.isatty():
            secret, _ = operator_key(self._files)
            _announce(f"to operate it: {url}/#key={secret}", url)

    def _environment(self) -> Mapping[str, str]:
        """Return the environment of our own processes: the caller's, and where the stores are."""
        set_here = {
            **self._addresses(),
            **self._operators(),
            **({} if self._keys is None else {KEYS_SETTING: str(self._keys.copy)}),
            "API_HOST": self._host,
            "API_PORT": str(self._port),
        }
        return {**_environment_without([*set_here, "POSTGRES_SUPERUSER_DSN"]), **set_here}


def _environment_without(names: Iterable[str]) -> Mapping[str, str]:
    """Return the caller's environment without these settings, and without files that hold them."""
    left_out = {*names, *(f"{name}_FILE" for name in names)}
    return {name: value for name, value in os.environ.items() if name not in left_out}


def _announce(line: str, url: str) -> None:
    """Print something to stdout; a reader that has gone away stops nothing."""
    try:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except OSError as error:
        _log.warning("stdout_lost", error=str(error), url=url)
        telemetry.drop_stdout()


async def _no_company(_url: str) -> None:
    """Do nothing."""


async def _keep(service: _Service) -> None:
    """Start the service again whenever it ends or hangs; for ever."""
    supervision = Supervision()
    child = service.child
    while True:
        while child.running:
            if supervision.hangs(is_alive=await service.is_alive()):
                _log.error("hangs", service=service.name)
                await child.kill()
            await wait_until(lambda: not child.running, LOOK_SECONDS, WATCH_SECONDS)
        _log.error("ended_unasked", service=service.name, how=child.exit_text())
        await asyncio.sleep(supervision.pause_seconds())
        supervision.started()
        try:
            await service.start()
        except ConfigurationError as error:
            _log.error("restart_failed", service=service.name, error=str(error))
        else:
            _log.info("restarted", service=service.name)


async def _all(*coroutines: Coroutine[None, None, None]) -> None:
    """Await all; at the first error cancel the others, and raise that error as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)
    except* ConfigurationError as errors:
        raise errors.exceptions[0] from None


def _on_signals() -> asyncio.Event:
    """Return an event that any of the stop signals sets; further ones do nothing."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup(1) stays in force
            loop.add_signal_handler(number, stopping.set)
    return stopping


def _refuse_taken_port(host: str, port: int) -> None:
    """Raise `ConfigurationError` if the address cannot be listened on."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise ConfigurationError(f"{host} is not an address of this machine: {error}") from error
    for family, kind, protocol, _, address in addresses:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                raise ConfigurationError(_port_text(host, port, error)) from error


def _port_text(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken by another program; choose another with --port"
    return f"cannot listen on port {port} of {host}: {error.strerror}"


def _url_host(host: str) -> str:
    """Return the host that a client on this machine writes into a URL."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 -- only compared
    return f"[{host}]" if ":" in host else host
