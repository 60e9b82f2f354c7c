"""Hostile clients meet the event loop of production."""

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every test of this directory on uvloop."""
    return {"uvloop": uvloop.new_event_loop}
