"""Exit with 0 if the process of this container is well, with 1 if it is not.

    python -I alive.py API_PORT

The argument is the variable that holds the port. Made for a HEALTHCHECK: with the standard
library's sockets alone, since an HTTP client takes longer to import than the answer takes.

While the container starts, well means that nothing is missing: all stores answer, there is a search
index, and a worker consumes. After `START_SECONDS` it means that the process answers at all: no
orchestrator shall end a process because a store is away.
"""

import os
import socket
import sys
from pathlib import Path

TIMEOUT_SECONDS = 3.0
"""Below the time that the health check itself is given, so that a hang is told as one."""
START_SECONDS = 60
"""The `start_period` of the health check: failures are not counted until then."""
FIRST_PROCESS = Path("/proc/1/stat")


def main(variable: str) -> int:
    """Ask once; tell what is wrong, which `docker inspect` shows."""
    starts = seconds_since_start() < START_SECONDS
    try:
        answer = ask(int(os.environ[variable]), "/health/ready" if starts else "/health/live")
    except (OSError, KeyError, ValueError) as error:
        sys.stderr.write(f"{variable}: {error!r}\n")
        return 1
    sys.stdout.write(f"{answer.decode(errors='replace')}\n")
    well = answer.startswith(b"HTTP/1.1 200") and (not starts or b'"mode":"normal"' in answer)
    return 0 if well else 1


def ask(port: int, path: str) -> bytes:
    """Return the whole answer to a GET."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as connection:
        connection.sendall(request.encode())
        with connection.makefile("rb") as answer:
            return answer.read()


def seconds_since_start() -> float:
    """Return the age of the container's first process (proc(5))."""
    ticks = int(FIRST_PROCESS.read_text().rpartition(")")[2].split()[19])
    up_seconds = float(Path("/proc/uptime").read_text().split()[0])
    return up_seconds - ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
