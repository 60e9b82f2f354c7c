"""What only tantivy can do wrong: its lock, its files, its threads."""

import asyncio
import gc
import resource
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.tantivy.index import TantivyIndex
from polyglot_persistence.domain.order import Order, new_id
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.orders import StoredOrder
from tests.support.eventually import eventually
from tests.support.orders import START
from tests.support.processes import REPOSITORY
from tests.support.search_indexes import Tantivy, asked, found, made
from tests.support.servers import short_directory


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Tantivy]:
    """A directory without an index."""
    with short_directory() as directory:
        engine = Tantivy(directory / "search")
        try:
            yield engine
        finally:
            await engine.close()


def rows(count: int) -> list[StoredOrder]:
    orders = [Order(new_id(), "Milk", Decimal("1.00"), START) for _ in range(count)]
    return [StoredOrder(order, START, START) for order in orders]


async def indexed(engine: Tantivy, index: TantivyIndex, count: int) -> None:
    """Make an index and index some orders, each in a segment of its own."""
    await made(engine)
    for one in rows(count):
        await index.index([one])


def files(engine: Tantivy, pattern: str) -> list[Path]:
    return list(engine.directory.glob(f"orders-*/{pattern}"))


@asynccontextmanager
async def writing_process(directory: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start another process that indexes for ever, and kill it in the end (SIGKILL)."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.support.search_writer", str(directory)),
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_one_process_writes_and_its_death_frees_the_index(engine: Tantivy) -> None:
    """A second is refused at once; the first one's kill -9 loses nothing that it committed."""
    index = await made(engine)
    async with writing_process(engine.directory) as process:
        assert process.stdout is not None
        lines = b"".join([await process.stdout.readline() for _ in range(30)])
        with pytest.raises(UnavailableError, match="another process writes"):
            await index.index(rows(1))
        assert await found(index) >= 0  # reading needs no lock
        process.kill()
        rest, _ = await process.communicate()
        complete, _, _ = (lines + rest).decode().rpartition("\n")
        committed = [UUID(line) for line in complete.splitlines()]
    assert await index.index(rows(1)) == []
    assert None not in [await index.indexed_at(order_id) for order_id in committed]


async def test_closing_frees_the_index(engine: Tantivy) -> None:
    """The next process writes at once; the closed one only refuses."""
    first, second = engine.process(), engine.process()
    await indexed(engine, first, 1)
    await first.close()
    assert await second.index(rows(1)) == []
    for call in (first.index(rows(1)), first.search(asked("milk", 10))):
        with pytest.raises(UnavailableError):
            await call


async def test_a_handle_alone_touches_nothing(engine: Tantivy) -> None:
    """Building one makes no file; asking makes none either."""
    index = engine.process()
    with pytest.raises(UnavailableError):
        await index.search(asked("milk", 10))
    assert not engine.directory.exists()


def _halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _scribble(path: Path) -> None:
    path.write_bytes(b"\x00" * 100)


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("meta.json", _scribble),
        ("meta.json", _halve),
        ("meta.json", Path.unlink),
        ("*.idx", _halve),
        ("*.store", _halve),
        ("*.store", Path.unlink),
        ("*.term", _scribble),
        ("*.fast", Path.unlink),
        ("../current", _halve),
        ("../current", Path.unlink),
    ],
)
async def test_a_damaged_index_is_replaced(
    engine: Tantivy, pattern: str, damage: Callable[[Path], None]
) -> None:
    """It is disposable: known as missing, created anew, and what was left of it removed."""
    writer, reader = engine.process(), engine.process()
    await indexed(engine, writer, 3)
    await writer.close()
    for path in files(engine, pattern):
        damage(path)
    assert await reader.name() is None
    with pytest.raises(UnavailableError):
        await reader.search(asked("milk", 10))
    await made(engine)
    assert (await reader.search(asked("milk", 10))).total == 0
    assert await reader.index(rows(2)) == []
    assert len(list(engine.directory.glob("orders-*"))) == 1


async def test_an_index_is_not_given_up_for_want_of_handles(engine: Tantivy) -> None:
    """What the machine is short of says nothing about the index."""
    writer = engine.process()
    await indexed(engine, writer, 3)
    late = engine.process()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        for call in (late.name(), found(late)):
            with pytest.raises(UnavailableError, match=r"[Tt]oo ?[Mm]any ?[Oo]pen ?[Ff]iles"):
                await call
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert await found(late) == 3


async def test_a_failed_commit_frees_the_index_at_once(engine: Tantivy) -> None:
    """Not only when garbage is collected: until then no process could write to it."""
    writer, other = engine.process(), engine.process()
    await indexed(engine, writer, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    gc.disable()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # as if the disk were full
        try:
            with pytest.raises(UnavailableError, match=r"writer was killed|File too large"):
                await writer.index(rows(1))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert await other.index(rows(1)) == []
    finally:
        gc.enable()
    assert await found(other) == 2


async def test_a_writer_outlived_by_its_index_leaves_the_next_alone(engine: Tantivy) -> None:
    """It writes to a directory that nobody reads, not into its successor."""
    old = engine.process()
    await indexed(engine, old, 2)
    before = files(engine, "meta.json")
    await engine.make_foreign(form=1)
    await made(engine)
    assert not set(before) & set(files(engine, "meta.json"))
    assert await old.index(rows(1)) == []  # follows to the new one
    assert await found(old) == 1


async def test_files_do_not_pile_up(engine: Tantivy) -> None:
    """Merging and removing keeps pace with many small batches."""
    index = engine.process()
    await indexed(engine, index, 24)

    async def merged() -> None:
        await index.index(rows(1))
        assert len(files(engine, "*.store")) < 16

    await eventually(merged)


async def test_a_deadline_is_kept_and_the_event_loop_runs_on(engine: Tantivy) -> None:
    """A batch that takes longer than granted is an error in time, while other tasks run."""
    await made(engine)
    index = TantivyIndex(engine.directory, search_timeout_seconds=5, index_timeout_seconds=0.05)
    orders = rows(30_000)
    batch = asyncio.create_task(index.index(orders))
    ticks = 0
    while not batch.done():
        await asyncio.sleep(0)
        ticks += 1
    assert ticks > 1
    with pytest.raises(UnavailableError, match="within"):
        await batch
    await index.close()
