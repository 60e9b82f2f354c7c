"""A fake's port as contract tests have it: a call lets others have a turn, as a socket would."""

import asyncio
import inspect
from typing import Any, TypeVar, cast

Port = TypeVar("Port")


class _Turns:
    """The port, whose replies come a step of the event loop later than its effects."""

    def __init__(self, port: object) -> None:
        self._port = port

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._port, name)
        if not inspect.iscoroutinefunction(attribute):
            return attribute

        async def call(*arguments: Any, **named: Any) -> Any:
            try:
                return await attribute(*arguments, **named)
            finally:
                await asyncio.sleep(0)

        return call


def taking_turns(port: Port) -> Port:
    """Return the port, so that nobody who calls it in a loop keeps others from running."""
    return cast("Port", _Turns(port))
