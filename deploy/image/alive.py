"""Exit with 0 if the process of this container answers on its port, with 1 if it does not.

    python -I alive.py API_PORT

The argument is the variable that holds the port. Made for a HEALTHCHECK: with the standard
library's sockets alone, since an HTTP client takes longer to import than the answer takes.
"""

import os
import socket
import sys

TIMEOUT_SECONDS = 3.0
"""Below the time that the health check itself is given, so that a hang is told as one."""
REQUEST = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def main(variable: str) -> int:
    """Ask once; tell what is wrong, which `docker inspect` shows."""
    try:
        with socket.create_connection(
            ("127.0.0.1", int(os.environ[variable])), TIMEOUT_SECONDS
        ) as connection:
            connection.sendall(REQUEST)
            status = connection.recv(1_024).partition(b"\r\n")[0]
    except (OSError, KeyError, ValueError) as error:
        sys.stderr.write(f"{variable}: {error!r}\n")
        return 1
    sys.stdout.write(f"{status.decode(errors='replace')}\n")
    return 0 if status.startswith(b"HTTP/1.1 200") else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
