"""A fake's port as a contract test has it: a call lets others have their turn, as a socket would."""

import asyncio
import inspect
from typing import Any, TypeVar, cast

Port = TypeVar("Port")


class _Turns:
    """The port, whose calls begin a step of the event loop later."""

    def __init__(self, port: object) -> None:
        self._port = port

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._port, name)
        if not inspect.iscoroutinefunction(attribute):
            return attribute

        async def call(*arguments: Any, **named: Any) -> Any:
            await asyncio.sleep(0)
            return await attribute(*arguments, **named)

        return call


def taking_turns(port: Port) -> Port:
    """Return the port, so that nobody who calls it in a loop keeps others from running."""
    return cast("Port", _Turns(port))
