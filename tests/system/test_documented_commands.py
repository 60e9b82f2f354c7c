"""Every command of the documents, run as it stands against a running `polyglot up`.

Each page gets a service of its own, so that its answers are those of a fresh installation. The
commands run in a directory that holds the service's `.data`, one after another in one shell's
environment; only the port and the number of loaded orders are replaced. Answers of the API
reference are held against the types that it describes.
"""

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from openapi_schema_validator import OAS31Validator

from scripts import document_api
from tests.support.documents import PAGES, Example, alike, examples
from tests.support.eventually import look_again
from tests.support.processes import Up, polyglot_up
from tests.support.servers import short_directory

pytestmark = pytest.mark.timeout(240)

PORT = "localhost:8080"
LOAD_PORT = "localhost:8081"
"""A second, empty service: a load compares all that the service holds."""

COMMAND_SECONDS = 60.0
ANSWER_SECONDS = 20.0
"""How long what comes behind (persisting, indexing) may take until a question is answered."""

REPEATABLE = re.compile(r"\b(POST|-d|--data\S*|polyglot load)\b")
DESCRIPTION = document_api.description()
OPERATIONS = list(document_api.operations(DESCRIPTION))
RUN = [page for page in PAGES if examples(page)]


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as path:
        yield path


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
async def test_commands_do_what_the_page_says(page: Path, directory: Path) -> None:
    """Each command of the page succeeds, and answers what the page shows."""
    shell = _Shell(directory)
    found = examples(page)
    async with polyglot_up(directory / ".data", environment={"API_KEYS": ""}) as up:
        shell.hosts[PORT] = _host(up)
        for example in found:
            if LOAD_PORT in example.command.text and LOAD_PORT not in shell.hosts:
                async with polyglot_up(directory / "load") as second:
                    shell.hosts[LOAD_PORT] = _host(second)
                    await shell.check(example)
            else:
                answer = await shell.check(example)
                if page == document_api.PAGE:
                    _has_its_type(example.command.text, answer)


def _has_its_type(command: str, answer: str) -> None:
    """Assert that what the API answers to a command of its reference is what it describes."""
    operation = next(one for one in OPERATIONS if one.command() == command)
    _, content = operation.content()
    if "/json" in operation.content()[0]:
        schema = {**content["schema"], "components": DESCRIPTION["components"]}
        OAS31Validator(schema).validate(json.loads(answer))
    else:
        assert answer.strip(), command


def _host(up: Up) -> str:
    return f"127.0.0.1:{up.port}"


class _Shell:
    """Runs commands one after another; what one exports or sets the next one sees."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._state = directory / "shell-state"
        self._state.touch()
        self.hosts: dict[str, str] = {}

    async def check(self, example: Example) -> str:
        """Run a block; where that is harmless, again until the answer is the documented one."""
        command, answer = example
        deadline = time.monotonic() + (0 if REPEATABLE.search(command.text) else ANSWER_SECONDS)
        while True:
            code, out, err = await self._run(command.text)
            right = code == 0 and (answer is None or alike(answer.text, out, answer.language))
            if right or time.monotonic() > deadline:
                break
            await look_again()
        assert code == 0, f"{command.place}: exit code {code}\n{out}\n{err}"
        assert right, f"{command.place}: the answer is\n{out}\n{err}"
        return out

    async def _run(self, text: str) -> tuple[int | None, str, str]:
        for written, host in self.hosts.items():
            text = text.replace(written, host)
        text = text.replace(".venv/bin/", "").replace("--limit 100000", "--limit 2000")
        state = self._state
        script = f"set -a; . {state}; cd {self._directory}\n{text}\nexport -p >{state}\n"
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", script),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        )
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        return process.returncode, out.decode(), err.decode()
