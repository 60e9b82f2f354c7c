"""What becomes of a process's connections when it dies."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.simulation.network import run
from tests.simulation.remotes import Contexts


@pytest.mark.parametrize("is_late", [False, True])
def test_connections_end_with_their_process(*, is_late: bool) -> None:
    """Also one of a call that was under way, and that a store takes once it goes on."""
    ended: list[bool] = []

    @asynccontextmanager
    async def connection() -> AsyncIterator[None]:
        try:
            yield
        finally:
            ended.append(True)

    contexts, context = Contexts(), connection()
    run(context.__aenter__())
    if is_late:
        contexts.end_all()
        contexts.opened(context)
    else:
        contexts.opened(context)
        contexts.end_all()
    assert ended == [True]
