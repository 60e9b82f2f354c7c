"""The HTTP API as a patient client sees it: one request at a time, each over its own connection."""

import asyncio
import http.client
import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from tests.support.eventually import WAIT_SECONDS, eventually
from tests.support.keys import key_headers

ANSWER_SECONDS = WAIT_SECONDS


class Answer(NamedTuple):
    """What the API said: the body decoded if it is JSON."""

    status: int
    headers: Mapping[str, str]
    json: Any


class Api:
    """The API on a port of the loopback."""

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def url(self) -> str:
        """Where the API answers."""
        return f"http://127.0.0.1:{self.port}"

    async def request(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request."""
        return await asyncio.to_thread(self._request, method, path, body, headers or {})

    async def order(self, product_name: str = "Milk", amount: str = "1.25") -> str:
        """Place an order, which must be accepted, and return its id."""
        order = {"product_name": product_name, "amount": amount}
        answer = await self.request("POST", "/api/orders", order)
        assert answer.status == 202, answer
        order_id: str = answer.json["order_id"]
        return order_id

    async def persisted(self, order_id: str) -> None:
        """Wait until the order is in PostgreSQL."""

        async def is_persisted() -> None:
            answer = await self.request("GET", f"/api/orders/{order_id}/status")
            assert answer.status == 200, answer
            assert answer.json["persisted_at"], answer

        await eventually(is_persisted)

    async def metrics(self) -> Mapping[str, float]:
        """Return the API's metrics, each summed over its labels."""
        sums: dict[str, float] = defaultdict(float)
        for line in (await self.request("GET", "/metrics")).json.decode().splitlines():
            if not line.startswith("#"):
                sample, _, value = line.rpartition(" ")
                sums[sample.partition("{")[0]] += float(value)
        return sums

    def _request(self, method: str, path: str, body: object, headers: Mapping[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        try:
            content = None if body is None else json.dumps(body)
            types = {"Content-Type": "application/json"} if content else {}
            connection.request(method, path, content, {**types, **key_headers(path), **headers})
            response = connection.getresponse()
            text = response.read()
            is_json = "json" in (response.headers.get("Content-Type") or "")
            return Answer(
                response.status, dict(response.headers), json.loads(text) if is_json else text
            )
        finally:
            connection.close()
