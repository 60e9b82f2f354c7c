"""Clients generated from the description: they compile, and keep every cent.

The generators are those that most people use; what they need beside Python is `TOOLS`.
"""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import pytest
import pytest_asyncio

from scripts import document_api
from tests.support import keys
from tests.support.processes import polyglot_up
from tests.support.servers import short_directory

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("generated clients"),
    pytest.mark.timeout(240),
]

AMOUNTS = ["0.01", "131072.07", "1234567.89", "9999999999.99"]
"""A `float32` keeps none of these but the first."""
SOURCES = Path(__file__).parent.parent / "clients"
TOOLS = {"go": ("java", "go"), "python": ("java",), "typescript": ("node", "npm")}


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as path:
        (path / "openapi.json").write_text(json.dumps(document_api.description()))
        yield path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def address() -> AsyncIterator[str]:
    with short_directory() as data:
        async with polyglot_up(data / "data") as up:
            yield up.url


@pytest.mark.parametrize("language", TOOLS)
async def test_a_generated_client_keeps_every_cent(
    language: str, directory: Path, address: str
) -> None:
    """It is compiled, places orders, reads the same amounts, and lists dead letters."""
    missing = [tool for tool in TOOLS[language] if shutil.which(tool) is None]
    if missing and os.environ.get("REQUIRE_SERVERS") != "1":
        pytest.skip(f"not installed: {', '.join(missing)} (.ci/run says by which packages)")
    make = {"go": make_go, "python": make_python, "typescript": make_typescript}[language]
    command, environment = await make(directory)
    out = await run(*command, address, keys.SECRET, *AMOUNTS, environment=environment)
    assert json.loads(out) == {"read": AMOUNTS, "total": 0}


Client = tuple[Sequence[str | Path], Mapping[str, str]]
"""What runs it, and in which environment."""


async def make_go(directory: Path) -> Client:
    """Generate and build a program, with the machine's own Go and no package beside it."""
    module = directory / "go"
    await generate("go", directory, module, "--git-host", "example.com")
    program = module / "client"
    program.mkdir()
    shutil.copy(SOURCES / "go" / "main.go", program)
    alone = {"GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    await run("go", "vet", "-unsafeptr=false", "./client", cwd=module, environment=alone)
    await run("go", "build", "-o", program / "run", "./client", cwd=module, environment=alone)
    return [program / "run"], {}


async def make_python(directory: Path) -> Client:
    """Generate a package; Python compiles it when it is imported."""
    package = directory / "python"
    await generate("python", directory, package)
    await run(sys.executable, "-m", "compileall", "-q", package / "orders")
    return [sys.executable, SOURCES / "main.py"], {"PYTHONPATH": str(package)}


async def make_typescript(directory: Path) -> Client:
    """Generate the types, and compile a program that keeps to them."""
    project = directory / "typescript"
    shutil.copytree(SOURCES / "typescript", project)
    await run("npm", "ci", "--no-audit", "--no-fund", cwd=project)
    tools = project / "node_modules" / ".bin"
    source = directory / "openapi.json"
    await run(tools / "openapi-typescript", source, "-o", project / "orders.ts", cwd=project)
    await run(tools / "tsc", "--project", project)
    return ["node", project / "out" / "main.js"], {}


async def generate(language: str, directory: Path, to: Path, *options: str) -> None:
    """Run openapi-generator."""
    jar = files("openapi_generator_cli") / "openapi-generator.jar"
    names = ("--package-name", "orders", "--git-user-id", "polyglot", "--git-repo-id", "orders")
    java = ("java", "-XX:TieredStopAtLevel=1", "-jar", str(jar))
    paths = ("-i", str(directory / "openapi.json"), "-o", str(to))
    await run(*java, "generate", "-g", language, *paths, *names, *options)


async def run(
    *command: str | Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """Return what a command prints, which must succeed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, f"{command}: {out.decode()[-3_000:]}\n{err.decode()[-3_000:]}"
    return out.decode()
