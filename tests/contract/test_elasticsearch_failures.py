"""What the Elasticsearch adapter makes of a cluster's refusals, stalls and absences."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from itertools import chain, pairwise
from pathlib import Path

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.elasticsearch.bulk import (
    BULK_BYTES_MAX,
    BULK_DOCUMENTS_MAX,
    BULKS_IN_FLIGHT_MAX,
    Item,
    chunks,
)
from polyglot_persistence.adapters.elasticsearch.connection import PAUSE_SECONDS_MIN, Credentials
from polyglot_persistence.adapters.elasticsearch.index import ElasticsearchIndex
from polyglot_persistence.bootstrap import doctor
from polyglot_persistence.config import load
from polyglot_persistence.domain.order import Order, new_id
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.orders import StoredOrder
from tests.support.certificates import certificate_for_loopback
from tests.support.elasticsearch_stub import (
    NOTHING_FOUND,
    Answer,
    Request,
    Stub,
    bulk_answer,
    index_at,
    stubbed,
)
from tests.support.eventually import eventually, eventually_true
from tests.support.orders import START
from tests.support.search_indexes import asked


@pytest_asyncio.fixture
async def stub() -> AsyncIterator[Stub]:
    """A server that does as it is told."""
    async with stubbed() as stub:
        yield stub


@pytest_asyncio.fixture
async def index(stub: Stub) -> AsyncIterator[ElasticsearchIndex]:
    """The index on it, with short deadlines."""
    index = index_at(f"http://127.0.0.1:{stub.port}")
    yield index
    await index.close()


def rows(count: int) -> list[StoredOrder]:
    orders = [Order(new_id(), "Milk", Decimal("1.00"), START) for _ in range(count)]
    return [StoredOrder(order, START, START) for order in orders]


# --- outcomes of a bulk ----------------------------------------------------------------------


async def test_bulks_are_bounded_and_some_are_in_flight(
    stub: Stub, index: ElasticsearchIndex
) -> None:
    """Every document goes once, in order, and never into an index that is not the alias's."""
    batch = rows(3 * BULK_DOCUMENTS_MAX + 1)
    halves = batch[::2], batch[1::2]
    await asyncio.gather(*(index.index(half) for half in halves))
    sent = [request.ids() for request in stub.bulks]
    assert max(map(len, sent)) == BULK_DOCUMENTS_MAX
    assert sorted(chain.from_iterable(sent)) == sorted(str(row.order.id) for row in batch)
    assert stub.in_flight_most == BULKS_IN_FLIGHT_MAX
    assert all("require_alias=true" in request.target for request in stub.bulks)


def test_bulks_are_bounded_by_bytes() -> None:
    """A chunk is below the bound; a document that alone is not still goes."""
    sizes = [BULK_BYTES_MAX // 3] * 7 + [BULK_BYTES_MAX + 1, 1]
    items = [Item(new_id(), b"x" * size) for size in sizes]
    parts = list(chunks(items))
    assert [len(part) for part in parts] == [3, 3, 1, 1, 1]
    assert [item for part in parts for item in part] == items
    assert list(chunks([])) == []


async def test_items_without_room_are_sent_again_alone(
    stub: Stub, index: ElasticsearchIndex
) -> None:
    """After a pause, until they are taken; what was taken is not sent twice."""
    batch = rows(10)
    busy = {str(row.order.id): tries for row, tries in zip(batch, [0, 1, 2] * 3, strict=False)}

    def status(order_id: str) -> int:
        left = busy.get(order_id, 0)
        busy[order_id] = left - 1
        return 429 if left > 0 else 201

    stub.bulk = lambda request: bulk_answer(request, status)
    assert await index.index(batch) == []
    assert [len(request.ids()) for request in stub.bulks] == [10, 6, 3]


async def test_a_node_without_room_for_a_bulk_gets_it_again(
    stub: Stub, index: ElasticsearchIndex
) -> None:
    """The whole request was refused, so the whole request is sent."""
    refusal = Answer(429, {"error": {"type": "es_rejected_execution_exception", "reason": "full"}})
    stub.bulk = lambda request: (
        refusal if len(stub.bulks) < 3 else bulk_answer(request, lambda _: 200)
    )
    assert await index.index(rows(5)) == []
    assert len(stub.bulks) == 3


async def test_a_document_that_can_never_be_taken_goes_alone(
    stub: Stub, index: ElasticsearchIndex
) -> None:
    """With the cluster's reason and the reason of that."""
    batch = rows(5)
    bad = str(batch[2].order.id)
    stub.bulk = lambda request: bulk_answer(
        request, lambda order_id: 400 if order_id == bad else 201
    )
    failures = await index.index(batch)
    assert [(failure.order_id, failure.reason) for failure in failures] == [
        (batch[2].order.id, "document_parsing_exception: failed to parse: of 1")
    ]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, "cluster_block_exception"),
        (403, "cluster_block_exception"),
        (403, "security_exception"),
        (400, "index_closed_exception"),
        (404, "index_not_found_exception"),
        (400, "strict_dynamic_mapping_exception"),
    ],
)
async def test_what_is_wrong_with_the_index_condemns_no_document(
    stub: Stub, index: ElasticsearchIndex, status: int, kind: str
) -> None:
    """A full disk or a closed index says nothing about an order; the call fails at once."""
    stub.bulk = lambda request: bulk_answer(request, lambda _: status, kind)
    with pytest.raises(UnavailableError, match=kind):
        await index.index(rows(3))
    assert len(stub.bulks) == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_what_never_finds_room_is_unavailable_in_time(
    stub: Stub, index: ElasticsearchIndex, status: int
) -> None:
    """The deadline holds over all attempts, and these are few."""
    stub.bulk = lambda request: bulk_answer(request, lambda _: status)
    with pytest.raises(UnavailableError):
        await index.index(rows(3))
    assert 1 < len(stub.bulks) < 12


async def test_one_failing_bulk_fails_the_call_when_all_have_ended(
    stub: Stub, index: ElasticsearchIndex
) -> None:
    """Nothing of a call goes on once it has failed."""
    refusals = [Answer(500, {"error": {"type": "oops", "reason": "no"}})]

    def bulk(request: Request) -> Answer:
        return refusals.pop() if refusals else bulk_answer(request, lambda _: 201)

    stub.bulk = bulk
    with pytest.raises(UnavailableError, match="500 oops: no"):
        await index.index(rows(3 * BULK_DOCUMENTS_MAX))
    assert len(stub.bulks) == 3


# --- a cluster that is away ------------------------------------------------------------------


async def test_a_stalled_cluster_costs_a_deadline_once(
    stub: Stub, index: ElasticsearchIndex
) -> None:
    """The next callers hear at once; the return is noticed within about a second."""
    stub.search = lambda _: NOTHING_FOUND
    stub.open.clear()
    with pytest.raises(UnavailableError, match="no answer in time"):
        await index.search(asked("milk", 10))
    requests = len(stub.requests)
    with pytest.raises(UnavailableError, match="cannot be reached"):
        await index.search(asked("milk", 10))
    assert len(stub.requests) == requests
    stub.open.set()
    await eventually(lambda: index.search(asked("milk", 10)), retried=(UnavailableError,))


async def test_a_stopped_cluster_is_tried_rarely_and_found_again(
    stub: Stub, index: ElasticsearchIndex
) -> None:
    """No storm of connections while it is away, no restart when it is back."""
    stub.search = lambda _: NOTHING_FOUND
    await index.search(asked("milk", 10))
    await stub.stop()
    reached_at: list[float] = []
    while len(reached_at) < 4:
        try:
            await index.search(asked("milk", 10))
        except UnavailableError as error:
            if "cannot be reached" not in str(error):
                reached_at.append(time.monotonic())
        await asyncio.sleep(0)
    pauses = [later - earlier for earlier, later in pairwise(reached_at)]
    assert min(pauses[1:]) > PAUSE_SECONDS_MIN / 2
    await stub.start()
    await eventually(lambda: index.search(asked("milk", 10)), retried=(UnavailableError,))


async def test_a_cancelled_caller_leaves_the_connection_in_order(
    stub: Stub, index: ElasticsearchIndex
) -> None:
    """The next answer is that of the next question."""
    stub.search = lambda _: NOTHING_FOUND
    stub.open.clear()
    tasks = [asyncio.create_task(index.search(asked("milk", 10))) for _ in range(50)]
    before = len(stub.requests)
    await eventually_true(lambda: len(stub.requests) > before, what="a request")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    stub.open.set()
    assert (await index.search(asked("milk", 10))).total == 0


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, "<html>a proxy's page</html>", headers={}),
        Answer(200, {"hits": {}}, headers={}),  # no Elasticsearch
        Answer(200, {"responses": [{"hits": {"hits": []}, "status": 200}] * 2}),  # more than asked
        Answer(200, {"responses": [{}]}),
        Answer(200, {"responses": [{"error": "of another form", "status": 400}]}),
        Answer(200, "[]"),
        Answer(502, "<html>bad gateway</html>"),
        Answer(503, {"error": {"type": "no_shard_available_action_exception", "reason": None}}),
        Answer(401, {"error": {"type": "security_exception", "reason": "missing credentials"}}),
        Answer(429, {"error": {"type": "circuit_breaking_exception", "reason": "too large"}}),
        Answer(404, {"error": {"type": "index_not_found_exception", "reason": "no such index"}}),
    ],
)
async def test_whatever_is_no_answer_is_unavailable(
    stub: Stub, index: ElasticsearchIndex, answer: Answer
) -> None:
    """Never an empty success, and never a driver's error."""
    stub.search = lambda _: answer
    with pytest.raises(UnavailableError):
        await index.search(asked("milk", 10))


async def test_a_part_of_the_index_is_never_all_of_it(
    stub: Stub, index: ElasticsearchIndex
) -> None:
    """A search asks for all shards, or none."""
    stub.search = lambda _: NOTHING_FOUND
    await index.search(asked("milk", 10))
    bodies = [one.body for one in stub.searches]
    assert bodies
    for header in chain.from_iterable(body.splitlines()[::2] for body in bodies):
        assert json.loads(header)["allow_partial_search_results"] is False


# --- who we are, and who they are ------------------------------------------------------------


async def test_credentials_are_sent_and_never_told(stub: Stub) -> None:
    """An API key, or user and password of the URL; no error holds them."""
    stub.search = lambda _: Answer(401, {"error": {"type": "security_exception", "reason": "no"}})
    for url, credentials, sent in (
        ("http://", Credentials(api_key="c2VjcmV0"), "ApiKey c2VjcmV0"),
        ("http://us%40er:secret@", Credentials(), "Basic dXNAZXI6c2VjcmV0"),
    ):
        index = index_at(f"{url}127.0.0.1:{stub.port}", credentials)
        with pytest.raises(UnavailableError) as refused:
            await index.search(asked("milk", 10))
        assert stub.requests[-1].headers["authorization"] == sent
        await stub.stop()
        with pytest.raises(UnavailableError) as away:
            await index.search(asked("milk", 10))
        assert "secret" not in f"{refused.value} {away.value}"
        assert "c2VjcmV0" not in f"{refused.value} {away.value}"
        await stub.start()
        await index.close()


async def test_a_certificate_is_verified_against_the_given_authority(tmp_path: Path) -> None:
    """With it a search is answered; without it there is no connection."""
    certificate, _, tls = certificate_for_loopback(tmp_path)
    stub = Stub()
    stub.search = lambda _: NOTHING_FOUND
    await stub.start(tls)
    url = f"https://127.0.0.1:{stub.port}"
    authority = ssl.create_default_context(cafile=certificate)
    trusting, wary = index_at(url, Credentials(certificate_authority=authority)), index_at(url)
    try:
        assert (await trusting.search(asked("milk", 10))).total == 0
        with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            await wary.search(asked("milk", 10))
    finally:
        await trusting.close()
        await wary.close()
        await stub.stop()


async def test_nothing_of_a_query_is_syntax_on_the_wire(
    stub: Stub, index: ElasticsearchIndex
) -> None:
    """Words go into values of a fixed query; there is no query string."""
    stub.search = lambda _: NOTHING_FOUND
    await index.search(asked('milk" OR *:* {"match_all": {}}', 10))
    body = json.loads(stub.requests[-1].body.splitlines()[1])
    assert [len(word["dis_max"]["queries"]) for word in body["query"]["bool"]["must"]] == [
        4,
        2,
        4,
        2,
    ]
    assert "query_string" not in json.dumps(body)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"version": {"distribution": "opensearch", "number": "2.19.1"}}, "this is OpenSearch"),
        ({"version": {"number": "7.10.2"}}, "this is another server"),
        ({"hello": "world"}, "this is another server"),
        (["no", "object"], "this is another server"),
    ],
)
async def test_another_product_is_named(body: object, named: str) -> None:
    """A server that speaks alike and is not Elasticsearch is said to be one, and what to do."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        content = json.dumps(body).encode()
        head = (
            f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(content)}"
        )
        writer.write(head.encode() + b"\r\nconnection: close\r\n\r\n" + content)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        index = index_at(url)
        with pytest.raises(UnavailableError, match=f"{named}.*, not Elasticsearch"):
            await index.ping()
        await index.close()
        findings = await asyncio.to_thread(doctor, load({"ELASTICSEARCH_URL": url}))
    (found,) = [one for one in findings if one.store == "search"]
    assert found.detail.endswith(f"{named}, not Elasticsearch")
    assert found.fix.startswith("point ELASTICSEARCH_URL at Elasticsearch 8")
