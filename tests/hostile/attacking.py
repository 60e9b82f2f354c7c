"""Do one kind of harm: `python -m tests.hostile.attacking KIND PORT SECONDS SECRET`."""

import asyncio
import json
import os
import sys

from tests.hostile import kinds_connections, kinds_front, kinds_requests
from tests.hostile.attack import KINDS, Attack

__all__ = ["KINDS", "kinds_connections", "kinds_front", "kinds_requests"]


async def _main(name: str, port: str, seconds: str, secret: str) -> None:
    os.nice(10)
    attack = Attack(int(port), float(seconds), secret)
    await KINDS[name].act(attack)
    found = {
        "seen": attack.seen,
        "acknowledged": attack.acknowledged,
        "imported": attack.imported,
        "unknown": attack.unknown,
        "clients": attack.clients,
        "sent": attack.sent,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
