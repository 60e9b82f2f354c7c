"""The Lua scripts beside this module: each is one atomic step on the server (Redis 7 or later)."""

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from polyglot_persistence.adapters.redis.client import RedisClient
from polyglot_persistence.adapters.redis.connection import Argument, Command, ReplyError


class Script:
    """A script sent by its digest, and in full only to a server that does not have it."""

    def __init__(self, name: str) -> None:
        source = resources.files(f"{__package__}.scripts").joinpath(f"{name}.lua")
        self._text = source.read_bytes()
        self._digest = hashlib.sha1(self._text, usedforsecurity=False).hexdigest()

    def load(self) -> Command:
        """Return the command that loads it into the server's script cache."""
        return ("SCRIPT", "LOAD", self._text)

    async def run(
        self, client: RedisClient, keys: Sequence[bytes], arguments: Sequence[Argument]
    ) -> Any:
        """Run it once; errors as `RedisClient.execute`."""
        command = self.command(keys, arguments)
        try:
            return await client.execute(*command)
        except ReplyError as error:
            if error.code != "NOSCRIPT":
                raise
        return (await client.pipeline(self.load(), command))[1]

    async def run_each(self, client: RedisClient, commands: Sequence[Command]) -> None:
        """Run it several times in one round trip, made by `command`; it must be idempotent."""
        try:
            await client.pipeline(*commands)
        except ReplyError as error:
            if error.code != "NOSCRIPT":
                raise
            await client.pipeline(self.load(), *commands)

    def command(self, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Command:
        """Return the command that runs it."""
        return ("EVALSHA", self._digest, len(keys), *keys, *arguments)
