"""Secrets that are planted in every setting and request turn up nowhere."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from polyglot_persistence.domain.access import Scope, new_api_key
from polyglot_persistence.embedded.postgres import EmbeddedPostgres
from tests.support.api import Api
from tests.support.eventually import eventually
from tests.support.processes import free_port, started
from tests.support.servers import running, short_directory

pytestmark = pytest.mark.timeout(120)

PLANTED = "hunter2-planted"
COMMAND = [sys.executable, "-m", "polyglot_persistence"]


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as path:
        path.chmod(0o755)
        yield path


async def test_no_secret_is_printed_logged_counted_or_answered(directory: Path) -> None:
    """By processes whose stores are away, refuse the login, or are asked with wrong keys."""
    secret, key = new_api_key("operator", [Scope.READ, Scope.WRITE, Scope.ADMIN])
    async with running(EmbeddedPostgres(directory / "postgres")) as postgres:
        api = Api(free_port())
        environment = {
            # It is there, and refuses this password.
            "POSTGRES_DSN": postgres.dsn.replace(postgres.dsn.split(":")[2].split("@")[0], PLANTED),
            "REDIS_ADDR": f"redis://user:{PLANTED}@127.0.0.1:{free_port()}/0",
            "RABBITMQ_URL": f"amqp://user:{PLANTED}@127.0.0.1:{free_port()}/",
            "ELASTICSEARCH_URL": f"http://user:{PLANTED}@127.0.0.1:{free_port()}",
            "ELASTICSEARCH_API_KEY": "none",
            "API_KEYS": key.line,
            "API_HOST": "127.0.0.1",
            "API_PORT": str(api.port),
            "LOG_LEVEL": "debug",
        }
        said = []
        with (
            started([*COMMAND, "api"], environment=environment) as serving,
            started([*COMMAND, "worker"], environment=environment) as worker,
        ):

            async def all_away() -> None:
                health = await api.request("GET", "/health/ready")
                assert health.status == 503
                assert "not_prepared" in serving.log() + worker.log()

            await eventually(all_away, retried=(OSError, AssertionError))
            for headers in (
                {"X-API-Key": f"pp_{PLANTED}"},
                {"Authorization": f"Bearer pp_{PLANTED}"},
                {"Authorization": f"Basic {PLANTED}"},
                {"X-API-Key": secret},
            ):
                for method, path in (
                    ("POST", "/api/orders"),
                    ("GET", "/api/search?q=x"),
                    ("GET", "/api/orders"),
                    ("POST", "/api/admin/refresh"),
                    ("GET", "/metrics"),
                ):
                    body = {"product_name": "Tea", "amount": 1} if path == "/api/orders" else None
                    sent = body if method == "POST" else None
                    answer = await api.request(method, path, sent, headers)
                    assert answer.status in (200, 401, 503, 504), (method, path, answer)
                    said.append(f"{answer.headers} {answer.json!r}")
            for words in (["config"], ["config", "--json"], ["doctor"], ["dead-letters", "list"]):
                with started([*COMMAND, *words], environment=environment) as command:
                    await command.ended()
                    said.append(command.output() + command.log())
            said += [serving.log(), worker.log(), serving.output(), worker.output()]
        everything = "\n".join(said)
        for planted in (PLANTED, secret, key.digest.hex()):
            where = [text[:300] for text in said if planted in text]
            assert not where, where
        assert "operator:read,write,admin:***" in everything
        refusals = [text for text in said if "'status': 503" in text]
        assert refusals
        assert not [text for text in refusals if "127.0.0.1" in text]


async def test_text_of_users_stays_inside_its_log_line(directory: Path) -> None:
    """Whatever breaks a line, or moves a terminal's cursor, is escaped."""
    nasty = 'a\nb\r\x1b[2J\x85\u2028{"level":"ERROR"}'
    for form in ("json", "text"):
        code = (
            "from polyglot_persistence.telemetry import logger, set_up_logging\n"
            f"set_up_logging('info', {form!r})\n"
            f"logger('x').warning('said', reason={nasty!r})\n"
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code), stderr=asyncio.subprocess.PIPE
        )
        _, err = await process.communicate()
        line = err.decode()
        assert line.endswith("\n")
        assert line.count("\n") == 1, line
        assert not {"\r", "\x1b"} & set(line), line
        if form == "json":
            assert json.loads(line)["reason"] == nasty
