"""The live page as its users meet it: in a real Chromium, over real processes and stores."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, expect

from polyglot_persistence.adapters.postgres.record import PostgresRecord
from polyglot_persistence.domain import codec
from polyglot_persistence.domain.access import ApiKey, Scope, digest_of
from polyglot_persistence.domain.dead_letter import DeadLetter, Stage
from polyglot_persistence.domain.order import new_id
from tests.support import keys
from tests.support.api import Api
from tests.support.eventually import eventually
from tests.support.orders import accepted
from tests.support.page import (
    NEEDS_CHROMIUM,
    READY_SECONDS,
    WAIT_MS,
    System,
    Visit,
    chromium,
    visit,
)
from tests.support.processes import free_port
from tests.support.record import pool_on

pytestmark = [
    NEEDS_CHROMIUM,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("page"),
    pytest.mark.timeout(120),
]

STOPPED_SECONDS = 8
"""Less than the service would wait for an answer that does not end."""

EVERYTHING = "pp_for-everything"
"""A key with every scope."""

expect.set_options(timeout=WAIT_MS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system() -> AsyncIterator[System]:
    async with System.up() as system:
        yield system


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(system: System) -> Api:
    """An API whose worker has made what reads need: tables, views and the index."""
    api, _ = await system.api()

    async def serves_reads() -> None:
        for path in ("/api/sales?by=day", "/api/search?q=tea"):
            assert (await api.request("GET", path)).status == 200

    await eventually(serves_reads, within_seconds=READY_SECONDS)
    return api


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def at(browser: Browser, api: Api) -> AsyncIterator[Visit]:
    """A visit of the page, not yet opened."""
    async with visit(browser, api.url) as at:
        yield at


async def place(at: Visit, name: str, amount: str) -> None:
    panel = at.panel("Place an order")
    await panel.get_by_role("combobox", name="Product").fill(name)
    await panel.get_by_role("textbox", name="Amount").fill(amount)
    await panel.get_by_role("button", name="Place order").click()


@asynccontextmanager
async def coming_in(api: Api) -> AsyncIterator[None]:
    """Place one order after the other meanwhile."""
    stop = asyncio.Event()

    async def place_orders() -> None:
        while not stop.is_set():
            await api.order()

    placing = asyncio.create_task(place_orders())
    try:
        yield
    finally:
        stop.set()
        await placing


async def searchable(api: Api, order_id: str) -> None:
    async def look() -> None:
        answer = await api.request("GET", f"/api/orders/{order_id}/status")
        assert answer.json["status"] == "searchable"

    await eventually(look, within_seconds=WAIT_MS / 1_000)


async def bury(system: System, *letters: DeadLetter) -> None:
    async with pool_on(system.postgres.dsn) as pool:
        await PostgresRecord(pool).bury(letters)


def letter(reason: str, name: str = "Tea") -> DeadLetter:
    """A letter whose order could be persisted by now."""
    order = accepted(name=name)
    item = codec.encode_item(order, codec.encode_order(order.order))
    return DeadLetter(order.order.id, order.unit_id, item, reason, Stage.PERSIST, 1)


# --- orders and figures ------------------------------------------------------------------------


async def test_an_order_is_followed_through_its_stages(at: Visit) -> None:
    """Accepted, persisted, searchable, each with its time; the figures count it."""
    await at.open()
    await expect(at.stage("accepted")).to_have_text(re.compile(r"\d in all"))
    before = int((await at.stage("searchable").inner_text()).split()[0])
    await place(at, "BANANAS, 40 LB", "0.59")
    order = at.page.locator(".order", has_text="BANANAS")
    await expect(order.locator(".stages .done")).to_have_count(3)
    await expect(order.locator("time")).to_have_count(3)
    await expect(order).to_contain_text(re.compile(r"Acceptedin [\d.]+ m?s"))
    await expect(at.stage("searchable")).to_have_text(f"{before + 1} in all")
    assert "order=" in at.page.url


async def test_figures_move_by_themselves(at: Visit, api: Api) -> None:
    """What others do is seen without a click: rates, totals, and the charts' descriptions."""
    await at.open()
    await expect(at.stage("persisted")).to_have_text(re.compile(r"\d in all"))
    before = int((await at.stage("persisted").inner_text()).split()[0])
    orders = [{"product_name": f"Tea {number}", "amount": 1} for number in range(50)]
    assert (await api.request("POST", "/api/bulk-orders", {"orders": orders})).status == 202
    await expect(at.stage("persisted")).to_have_text(f"{before + 50} in all")
    chart = at.page.get_by_role("img", name=re.compile("Orders a second"))
    async with coming_in(api):
        await expect(at.page.locator(".stage.persisted .big")).not_to_have_text("0")
        await expect(chart).to_have_accessible_name(re.compile(r"persisted [\d.]*[1-9]"))
    await expect(chart.locator("canvas")).to_be_visible()


async def test_what_is_wrong_with_an_order_stands_at_its_field(at: Visit) -> None:
    """With the rule, the focus on the first such field, and nothing placed."""
    at.refusals_expected = True
    await at.open()
    await place(at, "", "-1")
    name = at.page.get_by_label("Product", exact=True)
    await expect(name).to_be_focused()
    await expect(name).to_have_accessible_description(re.compile("Product must"))
    amount = at.page.get_by_role("textbox", name="Amount")
    await expect(amount).to_have_accessible_description(re.compile("Amount must not be negative"))
    await expect(at.page.locator(".order")).to_have_count(0)


async def test_an_order_is_found_by_its_id(at: Visit, api: Api) -> None:
    """Typed, or in the page's address; what is no id is said."""
    order_id = await api.order("YOGURT, 6 OZ", "0.89")
    await at.open()
    field = at.page.get_by_label("Follow an order by its id")
    await field.fill("17")
    await field.press("Enter")
    await expect(field).to_have_accessible_description(re.compile("is no order's id"))
    await field.fill(order_id)
    await field.press("Enter")
    await expect(at.page.locator(".order", has_text="YOGURT, 6 OZ")).to_contain_text("0.89")
    await at.open(f"?order={order_id}")
    await expect(at.page.locator(".order")).to_contain_text("YOGURT, 6 OZ")


# --- search and sales --------------------------------------------------------------------------


async def test_search_answers_while_one_types(at: Visit, api: Api) -> None:
    """With a typo, what matches marked, narrowed by filters; a hit can be followed."""
    await searchable(api, await api.order("SOFT DRINKS, 12 OZ", "3.50"))
    await searchable(api, await api.order("SOFT DRINKS, 2 L", "999.00"))
    await at.open()
    search = at.panel("Search")
    await at.page.keyboard.press("/")
    await at.page.keyboard.type("drniks")
    await expect(search.locator(".hit")).to_have_count(2)
    await expect(search.locator("mark").first).to_have_text("DRINKS")
    await search.get_by_text("Filters").click()
    await search.get_by_role("button", name="100.00 \N{EN DASH} 1,000.00").click()
    await expect(search.locator(".hit")).to_have_count(1)
    assert "q=drniks" in at.page.url
    assert "min=100.00" in at.page.url
    await search.locator(".hit").click()
    await expect(at.page.locator(".order")).to_contain_text("SOFT DRINKS, 2 L")
    await at.open("?q=nothinglikethis")
    await expect(search.get_by_role("status")).to_contain_text("Nothing found")


@pytest.mark.parametrize(
    "name", ["__proto__", "constructor", "a&limit=0#x?y=%41+\u00fc\"'<img src=x>", "${1+1}{{2}}"]
)
async def test_an_odd_name_is_only_a_name(at: Visit, api: Api, name: str) -> None:
    """It is shown and sent as it is, and no object of the page learns anything from it."""
    await searchable(api, await api.order(name, "7.77"))
    await at.open()
    learned = """() => JSON.stringify([Object, Array, String, Function].map(
        (one) => Object.getOwnPropertyNames(one.prototype).sort()))"""
    before = await at.page.evaluate(learned)
    search = at.panel("Search")
    async with at.page.expect_request(
        lambda request: parse_qs(urlsplit(request.url).query).get("q") == [name]
    ):
        await search.get_by_role("searchbox").fill(name)
    await expect(search.locator(".hit").first).to_contain_text(name)
    await search.locator(".hit").first.click()
    await expect(at.page.locator(".order")).to_contain_text(name)
    assert await at.page.evaluate(learned) == before


async def test_the_key_is_kept_for_its_tab_alone(at: Visit) -> None:
    """Nothing else is stored, and another tab has none; nor has the tab, once it is taken out."""
    await at.open()
    stored = "() => [{...sessionStorage}, {...localStorage}, document.cookie]"
    session, local, cookie = await at.page.evaluate(stored)
    assert (list(session.values()), local, cookie) == ([keys.SECRET], {}, "")
    other = await at.page.context.new_page()
    await other.goto(at.url)
    await expect(other.locator(".mode")).to_have_text("Normal")
    assert await other.evaluate(stored) == [{}, {}, ""]
    assert await other.evaluate("() => caches.keys()") == []
    await other.close()


async def test_sales_are_shown_by_period_and_product(at: Visit, api: Api) -> None:
    """By day and by hour, with the top products; the view's age, and its refresh."""
    order_id = await api.order("CAVIAR, 1 KG", "5000.00")
    await api.persisted(order_id)
    await at.open()
    sales = at.panel("Sales")
    await expect(sales.get_by_role("img", name=re.compile("Revenue by day"))).to_be_visible()
    await expect(sales.locator(".product").first).to_contain_text("CAVIAR, 1 KG")
    await sales.locator(".product").first.click()
    await expect(sales.locator(".totals")).to_have_text(
        "5,000.00 revenue, 1 orders, 5,000.00 on average"
    )
    await sales.get_by_text("As a table").click()
    await expect(sales.get_by_role("row").nth(1)).to_contain_text("5,000.00")
    await sales.get_by_text("Hour", exact=True).click()
    await expect(sales.get_by_role("img", name=re.compile("Revenue by hour"))).to_be_visible()
    await sales.get_by_role("button", name="Earlier").click()
    await expect(sales.get_by_role("button", name="Later")).to_be_enabled()
    assert "to=" in at.page.url
    await sales.get_by_role("button", name="Refresh view").click()
    await expect(sales.locator(".view")).to_have_text(re.compile(r"daily view of \d\.?\d? s ago"))


# --- dead letters ------------------------------------------------------------------------------


async def test_dead_letters_are_replayed_and_discarded(at: Visit, system: System, api: Api) -> None:
    """They come up by themselves, grouped; one is replayed, the rest of its kind confirmed."""
    await at.open()
    panel = at.panel("Dead letters")
    await expect(panel).to_contain_text("None.")
    mended = [letter(f"there was no room for {new_id()}") for _ in range(3)]
    await bury(system, *mended, letter("of no use"))
    await expect(panel.locator(".group")).to_have_count(2)
    await expect(panel.locator(".group").first).to_contain_text("there was no room for <id>")
    await panel.get_by_role("button", name="Show: there was no room").click()
    await expect(panel.locator(".letter")).to_have_count(3)
    await panel.locator(".letter").first.get_by_text("Payload").click()
    await expect(panel.locator("pre").first).to_contain_text('"product_name": "Tea"')
    await panel.locator(".letter").first.get_by_role("button", name="Replay").click()
    await _confirm(at, "Replay 1 dead letter?", "Replay 1")
    await expect(panel.get_by_role("status")).to_have_text("1 letter replayed.")
    await panel.get_by_role("button", name="Replay all: there was no room").click()
    await _confirm(at, "Replay 2 dead letters?", "Replay 2")
    await expect(panel.get_by_role("status")).to_have_text("2 letters replayed.")
    for one in mended:
        assert one.order_id is not None
        await api.persisted(str(one.order_id))
    await panel.get_by_label("Reason holds").fill("")
    await panel.get_by_label("Stage").select_option("")
    await panel.get_by_role("button", name="Discard all: of no use").click()
    await _confirm(at, "Discard 1 dead letter?", "Discard 1")
    await expect(panel).to_contain_text("None. Every order so far")


async def _confirm(at: Visit, question: str, answer: str) -> None:
    dialog = at.page.get_by_role("dialog", name=question)
    await dialog.get_by_role("button", name=answer).click()
    await expect(at.page.locator("h2#letters")).to_be_focused()


async def test_operating_needs_the_key(browser: Browser, system: System) -> None:
    """The page asks for it, keeps it for this tab alone, and says which store is away."""
    environment = {**keys.ENVIRONMENT, "ELASTICSEARCH_URL": f"http://127.0.0.1:{free_port()}"}
    api, _ = await system.api(environment)
    secret = keys.key_headers("/api/admin/")["X-API-Key"]
    async with visit(browser, api.url) as at:
        at.refusals_expected = True
        await at.open("?q=tea", key="")
        await expect(at.page.locator(".mode")).to_have_text("Degraded: search away")
        await expect(at.notice("Everything but search works")).to_be_visible()
        await expect(at.panel("Search").get_by_role("alert")).to_contain_text("Search is away")
        letters = at.panel("Dead letters")
        await letters.get_by_role("button", name="Enter a key").click()
        dialog = at.page.get_by_role("dialog", name="API key")
        await dialog.get_by_label("Sent with every request").fill("wrong")
        await dialog.get_by_role("button", name="Use the key").click()
        await letters.get_by_role("button", name="Enter a key").click()
        await dialog.get_by_label("Sent with every request").fill(secret)
        await at.page.keyboard.press("Enter")
        await expect(letters).to_contain_text("None.")
        await at.page.reload()
        await expect(letters).to_contain_text("None.")
        await at.page.get_by_role("button", name="Key in use").click()
        await dialog.get_by_role("button", name="Forget the key").click()
        await expect(letters.get_by_role("button", name="Enter a key")).to_be_visible()


async def test_a_page_without_a_key_asks_for_one(browser: Browser, system: System) -> None:
    """Where nobody may read without a key, the page says so, and is filled once it has one."""
    api, _ = await system.api(
        {
            "ANONYMOUS_SCOPES": "none",
            "API_KEYS": ApiKey(
                "all", frozenset(Scope) - {Scope.PUBLIC}, digest_of(EVERYTHING.encode())
            ).line,
        }
    )
    async with visit(browser, api.url) as at:
        at.refusals_expected = True
        await at.page.goto(at.url)
        await expect(at.notice("The live figures need a key")).to_be_visible()
        for panel in ("Sales", "Dead letters"):
            await expect(at.panel(panel).get_by_role("button", name="Enter a key")).to_be_visible()
        await expect(at.page.get_by_role("dialog")).to_have_count(0)
        await at.panel("Sales").get_by_role("button", name="Enter a key").click()
        await at.page.get_by_label("Sent with every request").fill(EVERYTHING)
        await at.page.keyboard.press("Enter")
        await expect(at.page.locator(".mode")).to_have_text("Normal")
        await expect(at.panel("Sales").locator(".totals")).to_be_visible()
        await expect(at.panel("Dead letters")).to_contain_text("None.")


# --- when something is away --------------------------------------------------------------------


async def test_a_record_that_is_away_is_explained(at: Visit, system: System) -> None:
    """Orders are accepted meanwhile, and their stages go on by themselves once it is back."""
    at.refusals_expected = True
    await at.open()
    await system.postgres.stop()
    try:
        await expect(at.page.locator(".mode")).to_have_text("Degraded: record away")
        await expect(at.notice("they are persisted once it is back")).to_be_visible()
        await place(at, "WHITE BREAD, 20 OZ", "1.99")
        order = at.page.locator(".order", has_text="WHITE BREAD")
        await expect(order.locator(".stages .done")).to_have_count(1)
        await expect(at.stage("persisted")).to_have_text("\N{EN DASH} in all")
        await expect(at.panel("Sales")).to_contain_text("the record is away")
    finally:
        await system.postgres.start()
    await expect(at.page.locator(".mode")).to_have_text("Normal")
    await expect(order.locator(".stages .done")).to_have_count(3)
    await expect(at.notice("Record away.")).to_have_count(0)


async def test_the_page_comes_back_by_itself(browser: Browser, system: System) -> None:
    """An open page holds no API up when it stops; it says so, and goes on when there is one."""
    api, process = await system.api()
    async with visit(browser, api.url) as at:
        at.refusals_expected = True
        await at.open()
        process.send(signal.SIGTERM)
        assert await process.ended(STOPPED_SECONDS) == 0
        await expect(at.page.locator(".mode")).to_have_text("Not connected")
        await expect(at.notice("The service does not answer")).to_be_visible()
        await expect(at.page.locator("section.stale")).to_have_count(1)
        await system.api(port=api.port)
        await expect(at.page.locator(".mode")).to_have_text("Normal")
        await expect(at.page.locator("section.stale")).to_have_count(0)


# --- for everybody -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/polyglot", "/polyglot/", "/polyglot?product=Tea"])
async def test_the_page_works_below_a_prefix(browser: Browser, system: System, path: str) -> None:
    """Also where a browser asks for it without the slash at its end."""
    api, _ = await system.api({"PATH_PREFIX": "/polyglot"})
    page = await browser.new_page()
    url = f"http://127.0.0.1:{api.port}"
    at = Visit(page, f"{url}/polyglot")
    await page.goto(f"{url}{path}#key={keys.SECRET}")
    await page.locator(".store.up").first.wait_for()
    assert [one for one in at.wrong if not one.endswith(f"{url}{path}")] == []
    await page.close()


async def test_everything_is_reached_by_keyboard(at: Visit) -> None:
    """The skip link comes first, forms are sent by Enter, a dialog gives the focus back."""
    await at.open()
    await at.page.keyboard.press("Tab")
    await expect(at.page.get_by_role("link", name="To the content")).to_be_focused()
    for name in ("API", "Metrics"):
        await at.page.keyboard.press("Tab")
        await expect(at.page.get_by_role("link", name=name, exact=True)).to_be_focused()
    await at.page.keyboard.press("Tab")
    await at.page.keyboard.press("Enter")
    await expect(at.page.get_by_role("dialog", name="API key")).to_be_visible()
    await at.page.keyboard.press("Escape")
    await expect(at.page.get_by_role("button", name="Key in use", exact=True)).to_be_focused()
    await at.page.keyboard.press("Tab")
    await expect(at.page.get_by_label("Product", exact=True)).to_be_focused()
    await at.page.keyboard.type("Keyboards")
    await at.page.keyboard.press("Escape")
    await at.page.keyboard.press("Tab")
    await at.page.keyboard.type("49.90")
    await at.page.keyboard.press("Enter")
    await expect(at.page.locator(".order")).to_contain_text("Keyboards")
    await at.page.keyboard.press("Escape")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
async def test_nobody_is_shut_out(
    browser: Browser, system: System, api: Api, width: int, scheme: Any
) -> None:
    """No fault that axe knows, with every panel filled and each dialog open; nothing sticks out."""
    await bury(system, letter("shown to axe"))
    await searchable(api, await api.order("Tea, 100 g"))
    size = {"width": width, "height": 800}
    async with visit(browser, api.url, viewport=size, color_scheme=scheme) as at:
        await at.open("?q=tea&min=0")
        await place(at, "Tea for axe", "1.00")
        await expect(at.page.locator(".stages .done")).to_have_count(3)
        await at.panel("Sales").get_by_text("As a table").click()
        await at.panel("Dead letters").get_by_text("One by one").click()
        await expect(at.page.locator(".hit").first).to_be_visible()
        await _check(at)
        await at.page.get_by_role("button", name="Discard all: shown").click()
        await expect(at.page.get_by_role("dialog")).to_be_visible()
        await _check(at, "dialog")
        beyond = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert await at.page.evaluate(beyond) == 0


async def _check(at: Visit, part: str = "html") -> None:
    found = await Axe().run(at.page, part)
    assert found.violations_count == 0, found.generate_report()
