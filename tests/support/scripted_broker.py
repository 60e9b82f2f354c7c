"""A RabbitMQ that says what no real one can be brought to say at will."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from pamqp import commands, frame
from pamqp.header import ProtocolHeader

from polyglot_persistence.adapters.rabbitmq.queue import RabbitMQQueue


class ScriptedBroker:
    """Speaks the handshake; to each method on a channel it answers as it is told."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[Any], list[Any]]] = {
            "Channel.Open": lambda _: [commands.Channel.OpenOk()],
            "Confirm.Select": lambda _: [commands.Confirm.SelectOk()],
            "Queue.Declare": lambda _: [commands.Queue.DeclareOk("order_queue", 0, 0)],
            "Basic.Get": lambda _: [commands.Basic.GetEmpty()],
        }
        self.connections: list[asyncio.StreamWriter] = []

    def say(self, method: Any, channel: int = 0) -> None:
        """Say something unasked, on every connection."""
        for writer in self.connections:
            writer.write(frame.marshal(method, channel))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections.append(writer)
        await reader.readexactly(len(ProtocolHeader().marshal()))
        start = commands.Connection.Start(server_properties={"product": "script", "version": "0"})
        writer.write(frame.marshal(start, 0))
        buffer = b""
        published = 0
        while data := await reader.read(65_536):
            buffer += data
            while len(buffer) >= 8:
                size = 8 + int.from_bytes(buffer[3:7])
                if len(buffer) < size:
                    break
                _, number, method = frame.unmarshal(buffer[:size])
                buffer = buffer[size:]
                published += method.name == "Basic.Publish"
                for answer in self._answer(method, published):
                    writer.write(frame.marshal(answer, number))
        writer.close()

    def _answer(self, method: Any, published: int) -> list[Any]:
        match method:
            case commands.Connection.StartOk():
                return [commands.Connection.Tune(10, 131_072, 60)]
            case commands.Connection.Open():
                return [commands.Connection.OpenOk()]
            case commands.Connection.Close():
                return [commands.Connection.CloseOk()]
        answer = self.answers.get(method.name)
        return answer(published) if answer else []


@asynccontextmanager
async def scripted_queue(
    *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[ScriptedBroker, RabbitMQQueue]]:
    """Start such a broker and yield it with a queue over it."""
    broker = ScriptedBroker()
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(broker.serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    scheme = "amqps" if tls else "amqp"
    queue = RabbitMQQueue(
        f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}",
        connect_timeout_seconds=2,
        publish_timeout_seconds=0.3,
    )
    try:
        yield broker, queue
    finally:
        await queue.close()
        server.close()
        await asyncio.gather(*tasks, return_exceptions=True)
