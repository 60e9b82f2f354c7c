"""A process of its own that owns one bundled server: `own_server.py postgres|valkey DIRECTORY`.

It prints the server's process id and address when that answers, and stops it when its standard
input ends. An error of the configuration is printed, with exit code 2.
"""

import asyncio
import sys
from pathlib import Path

from polyglot_persistence.embedded.postgres import EmbeddedPostgres
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from polyglot_persistence.errors import ConfigurationError


async def _own(kind: str, directory: Path) -> None:
    if kind == "postgres":
        postgres = EmbeddedPostgres(directory)
        await postgres.start()
        print(postgres.pid, postgres.dsn, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await postgres.stop()
    else:
        valkey = EmbeddedValkey(directory)
        await valkey.start()
        print(valkey.pid, valkey.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await valkey.stop()


if __name__ == "__main__":
    try:
        asyncio.run(_own(sys.argv[1], Path(sys.argv[2])))
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
