"""Certificates for tests of TLS."""

import ssl
import subprocess
from pathlib import Path


def certificate_for_loopback(directory: Path) -> tuple[Path, ssl.SSLContext]:
    """Return a new certificate that is its own authority, and a server's context with it."""
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return certificate, context
