"""The system as a whole: `deployment` is each of the two in turn."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.deployments import NEEDS_SERVERS, Deployment, embedded, on_servers
from tests.support.servers import short_directory


@pytest_asyncio.fixture(params=["embedded", pytest.param("servers", marks=NEEDS_SERVERS)])
async def deployment(request: pytest.FixtureRequest) -> AsyncIterator[Deployment]:
    """A deployment with empty stores, not yet started."""
    if request.param == "embedded":
        with short_directory() as directory:
            async with embedded(directory / "data") as deployment:
                yield deployment
    else:
        async with on_servers() as deployment:
            yield deployment


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a short path, which every user may enter."""
    with short_directory() as path:
        path.chmod(0o755)
        yield path
