"""Hostile clients meet the event loop of production."""

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every test of this directory on uvloop."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name a case by the beginning of its bytes, of which there may be megabytes."""
    return ascii(val[:40])[2:-1] if isinstance(val, bytes) else None
