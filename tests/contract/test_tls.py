"""Every store over TLS, by settings alone: verified, and refused by the wrong authority or name.

PostgreSQL and Redis speak TLS themselves. The bundled Valkey, RabbitMQ and Elasticsearch stand
behind a proxy that ends it, so that what is verified, and by what, is this project's in each case.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from polyglot_persistence.bootstrap import doctor
from polyglot_persistence.bootstrap.stores import connect
from polyglot_persistence.config import load
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from polyglot_persistence.errors import ConfigurationError, PolyglotError
from tests.support.addresses import (
    ELASTICSEARCH,
    POSTGRES,
    RABBITMQ,
    REDIS,
    address_of,
    needs,
)
from tests.support.certificates import Certificate, certificate_for_loopback
from tests.support.eventually import eventually
from tests.support.processes import free_port
from tests.support.proxy import Proxy
from tests.support.servers import redis_command, short_directory

REFUSAL = "CERTIFICATE_VERIFY_FAILED|certificate verify failed|Hostname mismatch"


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A directory that servers with a user of their own can read."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    with short_directory() as path:
        path.chmod(0o755)
        yield path


@pytest.fixture(scope="module")
def certificate(directory: Path) -> Certificate:
    made = certificate_for_loopback(directory)
    made.key.chmod(0o644)
    return made


@pytest.fixture(scope="module")
def other(directory: Path) -> Certificate:
    """Of an authority that no server here has."""
    return certificate_for_loopback(directory, name="other")


@pytest.fixture(scope="module")
def misnamed(directory: Path) -> Certificate:
    """Of a host that no server here is."""
    return certificate_for_loopback(directory, name="misnamed", host="DNS:elsewhere.example")


@asynccontextmanager
async def started(proxy: Proxy) -> AsyncIterator[int]:
    await proxy.start()
    try:
        yield proxy.port
    finally:
        await proxy.stop()


async def pinged(store: str, environment: Mapping[str, str]) -> None:
    """Ask one store of the settings; all others stay unasked."""
    stores = connect(load(environment))
    try:
        await stores.pingable()[store].ping()
    finally:
        await stores.close()


async def is_verified(
    store: str, environment: Mapping[str, str], ca_variable: str, right: Path, wrong: Path
) -> None:
    """Only the authority that signed it opens it; without, `doctor` names the setting for one."""
    await pinged(store, {**environment, ca_variable: str(right)})
    for refused in ({**environment, ca_variable: str(wrong)}, environment):
        with pytest.raises(PolyglotError, match=REFUSAL):
            await pinged(store, refused)
    await is_explained(store, environment, ca_variable)


async def is_explained(store: str, environment: Mapping[str, str], setting: str) -> None:
    """`doctor` names the setting for an authority, from what failed and not from its text."""
    findings = await asyncio.to_thread(doctor, load(environment))
    (found,) = [one for one in findings if one.store == store]
    assert (found.level, found.fix) == ("FAIL", f"name the authority of its certificate: {setting}")


async def is_refused(store: str, environment: Mapping[str, str]) -> None:
    with pytest.raises(PolyglotError, match=REFUSAL):
        await pinged(store, environment)


async def test_the_cache_is_verified(
    valkey_server: EmbeddedValkey,
    certificate: Certificate,
    other: Certificate,
    misnamed: Certificate,
) -> None:
    """By its authority, and by its name."""
    path = str(valkey_server.socket_path)
    async with started(Proxy(path, 0, tls=certificate.server)) as port:
        environment = {"REDIS_ADDR": f"rediss://127.0.0.1:{port}/0"}
        await is_verified("cache", environment, "REDIS_CA_FILE", certificate.path, other.path)
    async with started(Proxy(path, 0, tls=misnamed.server)) as port:
        environment = {"REDIS_ADDR": f"rediss://127.0.0.1:{port}/0"}
        await is_refused("cache", {**environment, "REDIS_CA_FILE": str(misnamed.path)})


async def test_streams_as_the_queue_are_verified(
    valkey_server: EmbeddedValkey, certificate: Certificate, other: Certificate
) -> None:
    """By the setting of the queue."""
    path = str(valkey_server.socket_path)
    async with started(Proxy(path, 0, tls=certificate.server)) as port:
        environment = {"RABBITMQ_URL": f"valkeys://127.0.0.1:{port}/0"}
        await is_verified("queue", environment, "RABBITMQ_CA_FILE", certificate.path, other.path)


@needs(REDIS)
async def test_a_redis_with_tls_of_its_own_is_verified(
    certificate: Certificate, other: Certificate
) -> None:
    """With a password, which only goes to whom is verified."""
    address, port = f"redis://{address_of(REDIS)}", free_port()
    # At once: it takes certificates only while it has a port for them.
    done = await redis_command(
        address, "CONFIG", "SET", "tls-port", str(port), "tls-auth-clients", "no",
        "tls-cert-file", str(certificate.path), "tls-key-file", str(certificate.key),
    )  # fmt: skip
    assert done == b"OK"
    try:
        environment = {"REDIS_ADDR": f"rediss://127.0.0.1:{port}/0"}
        await is_verified("cache", environment, "REDIS_CA_FILE", certificate.path, other.path)
    finally:
        await redis_command(address, "CONFIG", "SET", "tls-port", "0")


@needs(RABBITMQ)
async def test_the_broker_is_verified(
    certificate: Certificate, other: Certificate, misnamed: Certificate
) -> None:
    """By its authority, and by its name."""
    url = urlsplit(address_of(RABBITMQ))
    assert url.hostname
    assert url.port
    for shown in (certificate, misnamed):
        async with started(Proxy(url.hostname, url.port, tls=shown.server)) as port:
            login, _, _ = url.netloc.rpartition("@")
            environment = {
                "RABBITMQ_URL": urlunsplit(
                    url._replace(scheme="amqps", netloc=f"{login}@127.0.0.1:{port}")
                )
            }
            if shown is certificate:
                await is_verified(
                    "queue", environment, "RABBITMQ_CA_FILE", certificate.path, other.path
                )
            else:
                await is_refused("queue", {**environment, "RABBITMQ_CA_FILE": str(shown.path)})


@needs(ELASTICSEARCH)
async def test_the_search_is_verified(certificate: Certificate, other: Certificate) -> None:
    """By its authority."""
    url = urlsplit(address_of(ELASTICSEARCH))
    assert url.hostname
    assert url.port
    async with started(Proxy(url.hostname, url.port, tls=certificate.server)) as port:
        stores = connect(
            load(
                {
                    "ELASTICSEARCH_URL": f"https://127.0.0.1:{port}",
                    "ELASTICSEARCH_CA_FILE": str(certificate.path),
                }
            )
        )
        try:
            await (
                stores.rebuild_target.current_name()
            )  # it answers, whether or not an index is there
        finally:
            await stores.close()
        for environment in ({"ELASTICSEARCH_CA_FILE": str(other.path)}, {}):
            refused = {"ELASTICSEARCH_URL": f"https://127.0.0.1:{port}"} | environment
            await is_refused("search", refused)
            await is_explained("search", refused, "ELASTICSEARCH_CA_FILE")


def _copied(source: Path, folder: Path) -> Path:
    """Copy a file to where its new owner, the folder's, is the only one to read it."""
    copy = folder / f"test-{source.name}"
    shutil.copy(source, copy)
    copy.chmod(0o600)
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(copy, owner.st_uid, owner.st_gid)
    return copy


@asynccontextmanager
async def tls_switched_on(dsn: str, certificate: Certificate) -> AsyncIterator[None]:
    """Let a PostgreSQL show a certificate, and no longer at the end."""
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        folder = Path(await connection.fetchval("SHOW data_directory"))
        copies = [_copied(source, folder) for source in (certificate.path, certificate.key)]
        settings = {
            "ssl_cert_file": f"test-{certificate.path.name}",
            "ssl_key_file": f"test-{certificate.key.name}",
            "ssl": "on",
        }
        for name, value in settings.items():
            await connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        await connection.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            for name in reversed(settings):
                await connection.execute(f"ALTER SYSTEM RESET {name}")
            await connection.execute("SELECT pg_reload_conf()")
            for copy in copies:
                copy.unlink()
    finally:
        await connection.close(timeout=10)


@needs(POSTGRES)
async def test_the_record_is_verified(certificate: Certificate, other: Certificate) -> None:
    """As libpq's words for it say: by its authority, or by that and its name."""
    dsn = address_of(POSTGRES)
    parts = urlsplit(dsn)

    def with_tls(mode: str, root: Path) -> dict[str, Any]:
        query = f"sslmode={mode}&sslrootcert={root}"
        return {"POSTGRES_DSN": urlunsplit(parts._replace(query=query))}

    async with tls_switched_on(dsn, certificate):
        for mode in ("verify-ca", "verify-full"):
            # It reads its configuration again when it comes to it.
            attempt = partial(pinged, "record", with_tls(mode, certificate.path))
            await eventually(attempt, retried=(PolyglotError,))
            await is_refused("record", with_tls(mode, other.path))
            in_dsn = "sslrootcert in POSTGRES_DSN"
            await is_explained("record", with_tls(mode, other.path), in_dsn)


def test_a_file_without_certificates_is_named(tmp_path: Path) -> None:
    """A wrong setting, and no store that is away."""
    path = tmp_path / "ca.pem"
    path.write_text("no certificate")
    for name, address in (
        ("REDIS_CA_FILE", {"REDIS_ADDR": "rediss://127.0.0.1:1/0"}),
        ("RABBITMQ_CA_FILE", {"RABBITMQ_URL": "amqps://127.0.0.1:1/"}),
        ("ELASTICSEARCH_CA_FILE", {"ELASTICSEARCH_URL": "https://127.0.0.1:1"}),
    ):
        with pytest.raises(ConfigurationError, match=r"ca\.pem is no PEM file of certificates"):
            connect(load({**address, name: str(path)}))
