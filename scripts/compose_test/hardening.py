"""What keeps the services apart: passwords, networks, and file systems that cannot be written."""

import base64
import http.client
import json

from real_servers.machine import ServerError

from compose_test.stack import ONCE, SERVICES, Stack

UNREACHABLE = {
    "kibana": ("redis", "rabbitmq", "postgres", "api", "worker"),
    "redis": ("kibana",),
    "api": ("kibana",),
}
"""By service: others whose names it cannot even look up."""


def check(stack: Stack) -> None:
    """Look at everything once."""
    known = {path.name: path.read_text().strip() for path in stack.passwords.iterdir()}
    for service in SERVICES:
        container = stack.inspect(service)
        if not container["HostConfig"]["ReadonlyRootfs"]:
            raise ServerError(f"{service} can write to its root file system")
        if not stack.fails(service, "touch", "/usr/new"):
            raise ServerError(f"{service}: something can be written beside volumes and memory")
    for service, others in UNREACHABLE.items():
        for other in others:
            if not stack.fails(service, "getent", "hosts", other):
                raise ServerError(f"{service} reaches {other}")
    check_logins(stack)
    check_redis(stack)
    polyglot = f"polyglot:{known['elasticsearch_password']}"
    kibana = f"kibana_server:{known['kibana_password']}"
    for login, path, wanted in (
        ("", "/", 401),
        ("polyglot:wrong", "/", 401),
        (polyglot, "/", 200),
        (polyglot, "/orders/_search", 200),
        (polyglot, "/_security/user", 403),
        (kibana, "/.kibana_stand_in/_search", 200),
        (kibana, "/orders/_search", 403),
    ):
        status = ask_elasticsearch(stack, login, path)
        if status != wanted:
            user = login.partition(":")[0] or "nobody"
            raise ServerError(f"Elasticsearch answers {user} {status} for {path}, not {wanted}")


def check_logins(stack: Stack) -> None:
    """API and worker are no superusers of PostgreSQL, and nobody administers the broker."""
    sessions = stack.compose(
        *("exec", "--no-TTY", "postgres", "psql", "-U", "postgres", "-d", "ecommerce", "-Atc"),
        "SELECT DISTINCT rolname, rolsuper FROM pg_stat_activity JOIN pg_roles ON usesysid = oid"
        " WHERE client_addr IS NOT NULL",
    )
    if sessions.split() != ["polyglot_worker|f"]:
        raise ServerError(f"PostgreSQL is used as {sessions.split()}")
    users = stack.compose("exec", "--no-TTY", "rabbitmq", "rabbitmqctl", "-q", "list_users")
    if "guest\t[management]" not in users or "administrator" in users:
        raise ServerError(f"RabbitMQ's users are {users!r}")


def check_redis(stack: Stack) -> None:
    """Redis answers nobody without a password, and lets nobody administer it."""
    said = stack.compose("exec", "--no-TTY", "redis", "redis-cli", "ping", check=False)
    if "NOAUTH" not in said:
        raise ServerError(f"Redis answers without a password: {said}")
    for command in ("FLUSHALL", "CONFIG SET appendonly no", "SHUTDOWN"):
        script = f"REDISCLI_AUTH=$(cat /run/secrets/redis_password) redis-cli {command}"
        said = stack.compose("exec", "--no-TTY", "redis", "sh", "-c", script, check=False)
        if "NOPERM" not in said:
            raise ServerError(f"Redis answers {command}: {said}")


def check_nothing_shows(stack: Stack) -> None:
    """No password is in an environment or command that the engine prints, or among arguments."""
    shown = json.dumps(stack.inspect(ONCE))
    for path in stack.passwords.iterdir():
        if json.dumps(path.read_text().strip())[1:-1] in shown:
            raise ServerError(f"{path.name} is shown by {ONCE}")
    for service in SERVICES:
        arguments = stack.compose(
            "exec", "--no-TTY", service, "sh", "-c", "cat /proc/[0-9]*/cmdline", check=False
        )
        shown = json.dumps(stack.inspect(service)) + arguments.replace("\0", " ")
        for path in stack.passwords.iterdir():
            password = path.read_text().strip()
            if password in shown or json.dumps(password)[1:-1] in shown:
                raise ServerError(f"{path.name} is shown by {service}")


def ask_elasticsearch(stack: Stack, login: str, path: str) -> int:
    """Return the status of the answer."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", stack.ports["ELASTICSEARCH_PORT"], timeout=20
    )
    headers = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
    try:
        connection.request("GET", path, headers=headers if login else {})
        return connection.getresponse().status
    finally:
        connection.close()
