"""The stack of docker-compose.yml, unchanged: brought up on free ports, looked at, broken."""

import hashlib
import http.client
import json
import secrets
import subprocess
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from real_servers.machine import ServerError, free_ports

from compose_test.engine import REPOSITORY, Engine
from compose_test.images import without_digests

OURS = ("api", "worker")
ONCE = "migrate"
"""It ends by itself, and is none of the services that are watched and broken."""
STORES = ("redis", "rabbitmq", "postgres", "elasticsearch")
SERVICES = (*OURS, *STORES, "kibana")
PORTS = {
    "API_PORT": "api",
    "REDIS_PORT": "redis",
    "RABBITMQ_PORT": "rabbitmq",
    "RABBITMQ_UI_PORT": "rabbitmq",
    "POSTGRES_PORT": "postgres",
    "ELASTICSEARCH_PORT": "elasticsearch",
    "KIBANA_PORT": "kibana",
}
"""The variable of each port that is open outside, and the service behind it."""
FIRST_FILE = "docker-compose.yml"
API_KEY = "pp_only-for-this-test"
PLAIN = "/srv/plain-images.yml"
OWN_PASSWORDS = "/srv/passwords"
"""Inside of the engine's root."""
HEALTHY_SECONDS = 600
"""More than any service needs on a machine that does much else."""
REQUEST_SECONDS = 20


def eventually(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait until the condition is true and return how long that took."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            raise ServerError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)
    return time.monotonic() - begun


class Stack:
    """What `docker compose` makes of the checkout, on ports that are free here.

    Of docker-compose.yml and, if it is named, of a second file.
    """

    def __init__(self, engine: Engine, second_file: str | None = None) -> None:
        self.engine = engine
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self._variables = {name: str(port) for name, port in self.ports.items()} | {
            "API_KEYS": f"compose-test:admin:{hashlib.sha256(API_KEY.encode()).hexdigest()}",
            "ANONYMOUS_SCOPES": "read,write",
            "API_PORTS": f"{self.ports['API_PORT']}-{self.ports['API_PORT'] + 1}",
        }

        override = without_digests()
        files = [
            FIRST_FILE,
            *([second_file] if second_file else []),
            *([PLAIN] if override else []),
        ]
        self._files = [f"--file={file}" for file in files]
        Path(f"{engine.root}{PLAIN}").write_text(override)

        self.passwords = REPOSITORY / "deploy" / "secrets"
        """The directory of those in force, as it is seen from outside of the engine."""

    def take_own_passwords(self) -> None:
        """Have others from now on, with all that a shell or a format might take amiss."""
        own = Path(f"{self.engine.root}{OWN_PASSWORDS}")
        own.mkdir(exist_ok=True)
        for path in self.passwords.iterdir():
            (own / path.name).write_text(f"{secrets.token_hex(8)} \"\\'$&%:/@#\n")
        self.passwords = own
        self._variables["SECRETS_DIR"] = OWN_PASSWORDS

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run a command of `docker compose` and return what it printed."""
        return self._compose(*arguments, check=check).stdout

    def fails(self, service: str, *command: str) -> bool:
        """Whether a command in the service's container fails."""
        done = self._compose("exec", "--no-TTY", service, *command, check=False)
        return done.returncode != 0

    def _compose(self, *arguments: str, check: bool) -> subprocess.CompletedProcess[str]:
        return self.engine.docker(
            "compose",
            "--ansi=never",
            *self._files,
            *arguments,
            variables=self._variables,
            check=check,
        )

    def inspect(self, service: str) -> dict[str, Any]:
        """Return all that the engine knows of the service's container."""
        container = self.compose("ps", "--all", "--quiet", service).strip()
        described: list[dict[str, Any]] = json.loads(
            self.engine.docker("inspect", container).stdout
        )
        return described[0]

    def healthy(self, service: str) -> bool:
        state = self.inspect(service)["State"]
        return bool(state["Running"] and state["Health"]["Status"] == "healthy")

    def wait_healthy(self, service: str) -> float:
        """Return how long it took."""
        return eventually(lambda: self.healthy(service), HEALTHY_SECONDS, f"{service} healthy")

    def request(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Ask the API; return the status and what the body says, money as decimals.

        Raises:
            OSError, HTTPException: it does not answer.
        """
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.ports["API_PORT"], timeout=REQUEST_SECONDS
        )
        try:
            content = None if body is None else json.dumps(body)
            all_headers = {"Content-Type": "application/json", **(headers or {})}
            connection.request(method, path, content, all_headers)
            response = connection.getresponse()
            text = response.read()
            is_json = "json" in (response.headers.get("Content-Type") or "")
            return response.status, json.loads(text, parse_float=Decimal) if is_json else text
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """Return what is there.

        Raises:
            ServerError: anything but 200.
        """
        status, body = self.request("GET", path)
        if status != 200:
            raise ServerError(f"GET {path}: {status} {body}")
        return body
