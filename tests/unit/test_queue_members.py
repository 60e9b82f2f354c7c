"""What the queue's members are taken to be if the management API is not what it should be."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from polyglot_persistence.adapters.rabbitmq import members
from polyglot_persistence.adapters.rabbitmq.members import Members
from polyglot_persistence.config.addresses.rabbitmq import ManagementAddress

JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Api:
    """A server that answers every request with the same bytes, and keeps the requests."""

    def __init__(self, answer: bytes, *, endless: bool = False) -> None:
        self.answer = answer
        self.endless = endless
        self.requests: list[bytes] = []
        self.sent_bytes = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            while self.endless:
                writer.write(bytes(65_536))
                self.sent_bytes += 65_536
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def told_by(api: Api) -> AsyncIterator[Sequence[str]]:
    """Yield what an operator reads with this API."""
    async with await asyncio.start_server(api.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        address = ManagementAddress((f"http://127.0.0.1:{port}",), "user", "secret", "/")
        yield [one.detail for one in await Members(address, "order_queue", None).warnings()]


@pytest.mark.parametrize(
    "answer",
    [
        b"AMQP\x00\x00\x09\x01",  # the broker's own port
        b"",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        JSON + b"Content-Length: 100\r\n\r\n[",
        JSON + b"Transfer-Encoding: chunked\r\n\r\nno number\r\n",
        JSON + b"Content-Length: 2\r\n\r\n{}",
    ],
)
async def test_what_is_no_management_api_makes_the_members_unknown(answer: bytes) -> None:
    """No such answer ends a health check, or the process that makes it."""
    async with told_by(Api(answer)) as [told]:
        assert told.startswith("members of the queue are unknown: the management API: ")


async def test_an_answer_without_an_end_is_not_read_to_the_end() -> None:
    """It would fill the memory, and keep its thread."""
    api = Api(JSON + b"\r\n", endless=True)
    async with told_by(api) as [told]:
        assert told.endswith("its answer is too long")
        assert api.sent_bytes < members.ANSWER_BYTES_MAX + 32 * 1024 * 1024  # with all buffers


async def test_the_login_is_sent_to_the_named_nodes_alone() -> None:
    """A redirect is not followed: it might lead to another host, or off TLS."""
    other = Api(JSON + b"Content-Length: 2\r\n\r\n[]")
    async with await asyncio.start_server(other.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        place = b"Location: http://127.0.0.1:%d/\r\nContent-Length: 0\r\n\r\n" % port
        async with told_by(Api(b"HTTP/1.1 302 Found\r\n" + place)) as [told]:
            assert "HTTP Error 302" in told
    assert not other.requests
