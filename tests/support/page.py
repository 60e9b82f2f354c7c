"""The live page in a real Chromium, over an API and a worker whose stores a test may stop."""

import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, Request, async_playwright

from polyglot_persistence.embedded.postgres import EmbeddedPostgres
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from tests.support import keys
from tests.support.api import Api
from tests.support.eventually import eventually
from tests.support.processes import Process, free_port, started
from tests.support.servers import running, short_directory

READY_SECONDS = 90.0
WAIT_MS = 15_000
POLYGLOT = (sys.executable, "-m", "polyglot_persistence")

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None
)

NEEDS_CHROMIUM = pytest.mark.skipif(
    CHROMIUM is None and os.environ.get("REQUIRE_SERVERS") != "1",
    reason="no Chromium (Debian: apt-get install chromium-headless-shell)",
)


class System:
    """The stores, a worker, and an API on a port that it keeps when it is started again."""

    def __init__(self, directory: Path, postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> None:
        self.postgres = postgres
        self._resources = ExitStack()
        self.stores = {
            "POSTGRES_DSN": postgres.dsn,
            "REDIS_ADDR": valkey.url,
            "RABBITMQ_URL": valkey.url,
            "ELASTICSEARCH_URL": f"tantivy://{directory}/search",
        }

    @classmethod
    @asynccontextmanager
    async def up(cls) -> AsyncIterator[Self]:
        """Start everything with empty stores."""
        with short_directory() as directory:
            async with (
                running(EmbeddedPostgres(directory / "postgres")) as postgres,
                running(EmbeddedValkey(directory / "valkey")) as valkey,
            ):
                system = cls(directory, postgres, valkey)
                with system._resources:
                    system._start("worker")
                    yield system

    async def api(
        self, environment: Mapping[str, str] | None = None, port: int | None = None
    ) -> tuple[Api, Process]:
        """Start one more API process; return once it answers."""
        api = Api(port or free_port())
        own = {"API_HOST": "127.0.0.1", "API_PORT": str(api.port)}
        settings = {**keys.ENVIRONMENT, **own, **(environment or {})}
        process = self._start("api", settings)

        async def look() -> None:
            assert (await api.request("GET", "/health/ready")).status == 200

        await eventually(look, within_seconds=READY_SECONDS, retried=(OSError, AssertionError))
        return api, process

    def _start(self, command: str, environment: Mapping[str, str] | None = None) -> Process:
        settings = {**self.stores, **(environment or {})}
        return self._resources.enter_context(started([*POLYGLOT, command], environment=settings))


class Visit:
    """A page of its own, which remembers whatever went wrong in it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.refusals_expected = False
        """Whether an answer that is an error belongs to the test: Chromium logs each of them."""
        self.wrong: list[str] = []
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.wrong.append(f"page error: {error}"))
        page.on("request", self._asked)

    async def open(self, query: str = "", key: str = keys.SECRET) -> Self:
        """Load the page, by the link that operators are given, and wait for its first figures."""
        await self.page.goto(f"{self.url}/{query}{f'#key={key}' if key else ''}")
        await self.page.locator(".store.up").first.wait_for()
        return self

    def panel(self, name: str) -> Locator:
        """Return a section by its heading.

        Not by its role and name: tables in it that scroll are regions as well, named like it.
        """
        heading = self.page.get_by_role("heading", name=name)
        return self.page.locator("section.panel").filter(has=heading)

    def notice(self, words: str) -> Locator:
        """Return what the page itself announces in these words.

        A panel whose own request failed may say the same, as an alert.
        """
        return self.page.get_by_role("status").filter(has_text=words)

    def stage(self, name: str) -> Locator:
        """Return the text of how many orders in all have reached a stage."""
        return self.page.locator(f".stage.{name} .quiet")

    def _said(self, message: ConsoleMessage) -> None:
        refused = self.refusals_expected and message.text.startswith("Failed to load resource")
        if message.type in ("error", "warning") and not refused:
            self.wrong.append(f"console: {message.text} {message.location}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(f"{self.url}/"):
            self.wrong.append(f"a request to elsewhere: {request.url}")


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Run Chromium without a screen."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        await browser.close()


@asynccontextmanager
async def visit(browser: Browser, url: str, **context: Any) -> AsyncIterator[Visit]:
    """Give a fresh visit; at its end nothing may have gone wrong in it."""
    session = await browser.new_context(**context)
    session.set_default_timeout(WAIT_MS)
    visit = Visit(await session.new_page(), url)
    yield visit
    await session.close()
    assert not visit.wrong, visit.wrong
