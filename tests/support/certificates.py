"""Certificates for tests of TLS."""

import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple


class Certificate(NamedTuple):
    """A certificate that is its own authority, its key, and a server's context with them."""

    path: Path
    key: Path
    server: ssl.SSLContext


def certificate_for_loopback(
    directory: Path, *, name: str = "server", host: str = "IP:127.0.0.1"
) -> Certificate:
    """Return a new certificate for a host."""
    path, key = directory / f"{name}.pem", directory / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", f"subjectAltName={host}",
         "-keyout", key, "-out", path],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path, key)
    return Certificate(path, key, context)
