"""Ten thousand messages of any bytes on either queue: the workers outlive them, nothing is lost."""

import json
import random

import pytest

from tests.fault import contents
from tests.fault.messages import FuzzedMessage, fuzzed
from tests.fault.runs import started
from tests.support.deployments import NEEDS_SERVERS
from tests.support.eventually import eventually
from tests.support.patience import NOT_WELL

MESSAGES = 10_000
DRAIN_SECONDS = 240.0


@pytest.mark.timeout(420)
@pytest.mark.parametrize("deployment", ["embedded", pytest.param("servers", marks=NEEDS_SERVERS)])
async def test_messages_of_any_bytes_kill_no_worker_and_nothing_is_lost(deployment: str) -> None:
    """Valid orders among them are persisted; all else is in the record or a dead letter."""
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")
    messages = fuzzed(MESSAGES, seed)
    async with started(deployment) as (system, _):
        workers = [worker.pid for worker in system.workers]
        await system.put(messages)

        async def handled() -> str:
            if [worker.pid for worker in system.workers] != workers:
                raise WorkerDiedError(system.tracebacks()[-1:])
            assert await system.queued() == 0
            rows = await contents.record_ids(system.dsn())
            dead = await contents.dead_payloads(system.dsn())
            lost = [one for one in messages if not _is_handled(one, rows, dead)]
            assert not lost, f"{len(lost)}: {lost[:3]}"
            return f"{len(rows)} rows, {len(dead)} dead letters"

        print(await eventually(handled, within_seconds=DRAIN_SECONDS, retried=NOT_WELL))
        assert system.tracebacks() == []


class WorkerDiedError(Exception):
    """What no message may cause."""


def _is_handled(message: FuzzedMessage, rows: set[str], dead: dict[bytes, str | None]) -> bool:
    if message.valid_ids:
        return rows.issuperset(message.valid_ids)
    if message.body in dead or rows.intersection(message.ids):
        return True
    if set(dead.values()).intersection(message.ids):
        return True
    try:
        items = json.loads(message.body)
    except (ValueError, RecursionError):
        items = None
    return items == [] or any(payload in message.body for payload in dead)
