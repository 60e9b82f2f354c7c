"""A TCP proxy that cuts and stalls the link to a server, as a network does; with TLS if wanted."""

import asyncio
import contextlib
import ssl


class Proxy:
    """Forwards connections from a port of its own to a server.

    A host that begins with a slash is the path of a Unix socket.
    """

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._target = (host, port)
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self.port = 0

    async def start(self) -> None:
        """Listen on the loopback; `port` is known afterwards."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """End all connections and listen no more."""
        await self.cut()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def cut(self) -> None:
        """Reset every connection and each new one, until `restore`."""
        self._refusing = True
        while self._links:
            for link in self._links:
                link.cancel()
            await asyncio.wait(self._links)

    def restore(self) -> None:
        """Let connections through again."""
        self._refusing = False

    def stall(self) -> None:
        """Let nothing pass, and keep every connection open, until `resume`."""
        self._flowing.clear()

    def resume(self) -> None:
        """Let everything pass that was held up."""
        self._flowing.set()

    def lead_to(self, host: str, port: int) -> None:
        """Have new connections go to another server."""
        self._target = (host, port)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self._target
        if host.startswith("/"):
            return await asyncio.open_unix_connection(host)
        return await asyncio.open_connection(host, port)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.create_task(self._link(reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            if self._refusing:
                return
            try:
                far_reader, far_writer = await self._connect()
            except OSError:
                return  # as if the server itself had refused
            writers.append(far_writer)
            ways = [self._forward(reader, far_writer), self._answer(far_reader, writer)]
            tasks = [asyncio.create_task(way) for way in ways]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for one in writers:
                one.transport.abort()
            for one in writers:
                with contextlib.suppress(OSError):
                    await one.wait_closed()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            data = await reader.read(65_536)
            await self._flowing.wait()
            if not data:
                return
            writer.write(data)
            await writer.drain()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._forward(reader, writer)
