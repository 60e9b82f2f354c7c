"""Requests made of the published description, right and wrong ones, against a running service.

`FUZZ_EXAMPLES=500` makes more than ten thousand of them; `FUZZ_SEED` repeats a run.
"""

import asyncio
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.keys import SECRET
from tests.support.processes import polyglot_up
from tests.support.servers import short_directory

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "8"))
SECONDS_MAX = 300 + 15 * EXAMPLES

pytestmark = pytest.mark.timeout(SECONDS_MAX + 120)

CHECKS_LEFT_OUT = (
    # Rules that a schema cannot say: a cursor was given out, two parameters go together, a key is
    # not another order's. They are refused with 400 or 422, which the other checks hold to.
    "positive_data_acceptance",
)
NOT_ASKED = (
    "/api/live",  # a stream without end
    "/api/orders/import",  # no JSON; test_api_any_bytes has it
)


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as path:
        yield path


async def test_whatever_is_asked_is_answered_as_described(directory: Path) -> None:
    """No 5xx, and every status, header and body is one that the description has."""
    seed = os.environ.get("FUZZ_SEED") or str(random.randrange(1 << 32))
    async with polyglot_up(directory / "data") as up:
        command = [
            *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{up.url}/openapi.json"),
            *("--header", f"X-API-Key: {SECRET}"),
            *("--max-examples", str(EXAMPLES), "--seed", seed, "--no-color"),
            *("--exclude-checks", ",".join(CHECKS_LEFT_OUT), "--continue-on-failure"),
            *("--suppress-health-check", "all", "--request-timeout", "15"),
            *(word for path in NOT_ASKED for word in ("--exclude-path", path)),
        ]
        done = await asyncio.to_thread(
            subprocess.run,
            command,
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        made = re.search(r"(\d+) generated", done.stdout)
        print(f"seed {seed}: {made[0] if made else 'nothing'}")
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert made
        assert int(made[1]) >= 500 + 10 * EXAMPLES
        await up.persisted(await up.order())
        assert "request_failed" not in up.process.log()
