"""Poison in real processes: isolated, listed, replayed and discarded, over HTTP and by command."""

import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from polyglot_persistence.domain.order import new_id
from tests.support.addresses import BUNDLED
from tests.support.api import Api
from tests.support.eventually import WAIT_SECONDS, eventually, look_again
from tests.support.processes import (
    REPOSITORY,
    Up,
    free_port,
    polyglot_up,
    started,
)
from tests.support.servers import redis_command, short_directory

pytestmark = pytest.mark.timeout(300)

LETTERS = "/api/admin/dead-letters"
DEADLY = "of which workers die"
DEADLY_WORKER = [sys.executable, str(REPOSITORY / "tests/support/deadly_worker.py"), DEADLY]
POLYGLOT = [sys.executable, "-m", "polyglot_persistence"]
HURRY = {
    "DELIVERY_HOLD_SECONDS_MAX": "3",
    "WARM_QUIET_SECONDS": "3",
    "SWEEP_AGE_SECONDS": "1",
    "SWEEP_INTERVAL_SECONDS": "0.3",
    "OUTBOX_AGE_SECONDS": "1",
}
"""A dead worker's messages come again soon, and the sweeper does not leave all of it to them."""


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as path:
        yield path


async def command(*arguments: str, environment: Mapping[str, str], code: int = 0) -> Any:
    """Run `polyglot dead-letters` and return the JSON that it prints."""
    line = [*POLYGLOT, "dead-letters", *arguments, "--json"]
    with started(line, environment=environment) as process:
        assert await process.ended() == code, process.log()
        return json.loads(process.output())


async def status(api: Api, order_id: str) -> str:
    answer = await api.request("GET", f"/api/orders/{order_id}/status")
    return str(answer.json["status"]) if answer.status == 200 else str(answer.status)


async def reaches(api: Api, order_id: str, *stages: str) -> None:
    """Wait until the order's status is one of these."""

    async def look() -> None:
        assert await status(api, order_id) in stages

    await eventually(look, within_seconds=WAIT_SECONDS)


def addresses(data: Path) -> dict[str, str]:
    """Return the settings under which the stores of a running `polyglot up` are reached."""
    password = (data / "postgres" / "password").read_text().strip()
    valkey = f"unix://{data}/valkey/run/valkey.sock?db=0"
    return {
        "POSTGRES_DSN": f"postgresql://polyglot:{password}@/polyglot?host={data}/postgres/run",
        "REDIS_ADDR": valkey,
        "RABBITMQ_URL": valkey,
        "ELASTICSEARCH_URL": f"tantivy://{data}/search",
    }


async def put_on_the_queue(data: Path, *items: str) -> None:
    """Publish a message as nobody's version of this program would."""
    url = f"unix://{data}/valkey/run/valkey.sock?db=0"
    await redis_command(url, "XADD", "order_queue", "*", "body", f"[{','.join(items)}]")


def item(order_id: str, name: str, amount: str) -> str:
    order = (
        f'{{"id":"{order_id}","product_name":"{name}","amount":{amount},'
        '"created_at":"2026-01-31T12:00:00Z"}'
    )
    return f'{{"accepted_at":1769860800000000,"order":{order}}}'


async def test_poison_goes_alone_and_operators_get_rid_of_it(directory: Path) -> None:
    """Of a message put on the queue by hand, the good item is persisted, the bad ones are kept."""
    data = directory / "data"
    async with polyglot_up(data) as up:
        taken = await up.order("Milk")
        await up.persisted(taken)
        negative, good = str(new_id()), str(new_id())
        await put_on_the_queue(
            data, item(negative, "Tea", "-1"), item(good, "Tea", "1.00"), item(taken, "Tea", "2.00")
        )
        await up.persisted(good)
        await reaches(up, negative, "dead-lettered")
        await _two_letters(up, {negative: "decode", taken: "persist"})
        await _by_command(up, addresses(data), negative)
        answer = await up.request("POST", f"{LETTERS}/replay", {"all": True})
        assert (answer.status, answer.json["kept"]) == (200, 1)
        answer = await up.request("POST", f"{LETTERS}/discard", {"order_id": taken})
        assert (answer.status, answer.json["discarded"]) == (200, 1)
        assert (await up.request("GET", LETTERS)).json == {"letters": [], "total": 0, "groups": []}
        answer = await up.request("GET", f"/api/orders/{taken}")
        assert (answer.status, answer.json["product_name"]) == (200, "Milk")
        handled = up.process.log().count('"dead_letters_handled"')
        assert handled == 2  # what the command did is in its own log


async def _two_letters(up: Up, expected: Mapping[str, str]) -> None:
    async def look() -> None:
        listed = (await up.request("GET", LETTERS)).json
        assert {one["order_id"]: one["stage"] for one in listed["letters"]} == expected
        assert sum(group["letters"] for group in listed["groups"]) == listed["total"] == 2

    await eventually(look, within_seconds=WAIT_SECONDS)


async def _by_command(up: Up, environment: Mapping[str, str], order_id: str) -> None:
    """List, show, replay in vain and discard the order's letter, as an operator would."""
    listed = await command("list", "--order", order_id, environment=environment)
    (letter,) = listed["letters"]
    assert "amount" in letter["reason"]
    letter_id = str(letter["id"])
    shown = await command("show", letter_id, environment=environment)
    assert '"amount":-1' in shown["payload"]
    for attempts in (2, 3):
        handled = await command("replay", letter_id, environment=environment, code=1)
        assert [one["id"] for one in handled["kept_letters"]] == [letter["id"]]
        assert "must not be negative" in handled["kept_letters"][0]["detail"]
        shown = await command("show", letter_id, environment=environment)
        assert shown["attempts"] == attempts
    handled = await command("discard", letter_id, environment=environment)
    assert handled["discarded"] == 1
    await reaches(up, order_id, "404")
    handled = await command("discard", letter_id, environment=environment, code=1)
    assert handled["missing"] == [letter["id"]]


@asynccontextmanager
async def api_alone(environment: Mapping[str, str]) -> AsyncIterator[Api]:
    """Start `polyglot api` without a worker."""
    port = free_port()
    listening = {**environment, "API_PORT": str(port), "API_HOST": "127.0.0.1"}
    with started([*POLYGLOT, "api"], environment=listening) as process:
        api = Api(port)

        async def look() -> None:
            assert process.code is None, process.log()
            assert (await api.request("GET", "/health/ready")).status == 200

        await eventually(look, within_seconds=WAIT_SECONDS, retried=(AssertionError, OSError))
        yield api


@BUNDLED
async def test_a_crash_loop_ends_with_the_one_order_that_caused_it(
    directory: Path, postgres_dsn: str, redis_url: str
) -> None:
    """Workers die until it is found out; its neighbours are persisted; mended, it is replayed."""
    environment = {
        "POSTGRES_DSN": postgres_dsn,
        "REDIS_ADDR": redis_url,
        "RABBITMQ_URL": redis_url,
        "ELASTICSEARCH_URL": f"tantivy://{directory}/search",
        **HURRY,
    }
    async with api_alone(environment) as api:
        before = [await api.order(f"before {number}") for number in range(5)]
        deadly = await api.order(DEADLY)
        bulk = await api.request(
            "POST",
            "/api/bulk-orders",
            {"orders": [{"product_name": f"bulk {n}", "amount": 1} for n in range(3)]},
        )
        innocent = [*before, *bulk.json["order_ids"], await api.order("after")]
        deaths = await _deaths_until_condemned(api, environment, deadly)
        print(f"{deaths} workers died")
        assert 5 <= deaths <= 5 + 2 + 3  # alone; in messages; in sweeps, and one race of both
        listed = await command("list", environment=environment)
        assert [one["order_id"] for one in listed["letters"]] == [deadly]
        assert "workers died of it" in listed["letters"][0]["reason"]
        with started(DEADLY_WORKER, environment=environment) as alive:
            for order_id in innocent:
                await reaches(api, order_id, "persisted", "searchable")
            assert alive.code is None
        handled = await command("replay", "--all", environment=environment)
        assert handled["persisted"] == 1
        with started([*POLYGLOT, "worker"], environment=environment):
            await reaches(api, deadly, "searchable")


async def _deaths_until_condemned(api: Api, environment: Mapping[str, str], deadly: str) -> int:
    """Start a worker again and again; return how many died before one did not."""
    for deaths in range(50):
        with started(DEADLY_WORKER, environment=environment) as process:
            while process.code is None:
                if await status(api, deadly) == "dead-lettered":
                    return deaths
                await look_again()
    pytest.fail("no end of dying")
