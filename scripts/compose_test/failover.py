"""The stack with compose.ha.yml: a node of each store dies under orders, and comes back."""

import json
from collections.abc import Callable

from real_servers.machine import ServerError

from compose_test.checks import check_nothing_left, clear, say, timed, up
from compose_test.engine import Engine
from compose_test.orders import Writer, check_exactly, wait_complete
from compose_test.stack import HEALTHY_SECONDS, Stack, eventually

SECOND_FILE = "compose.ha.yml"
TWICE = ("api", "worker")
NODES = {
    "redis": ("redis", "redis-2", "sentinel-1", "sentinel-2", "sentinel-3"),
    "rabbitmq": ("rabbitmq", "rabbitmq-2", "rabbitmq-3"),
    "postgres": ("postgres", "postgres-2"),
    "elasticsearch": ("elasticsearch", "elasticsearch-2", "elasticsearch-3"),
}


def check(engine: Engine) -> None:
    """Do everything once; the first thing that does not hold ends it."""
    stack = Stack(engine, SECOND_FILE)
    clear(stack)
    try:
        run(stack)
    finally:
        stack.compose("down")
        engine.docker("image", "prune", "--force")


def run(stack: Stack) -> None:
    """Bring all nodes up, kill one of each store under orders, and take everything down."""
    timed("docker compose build", lambda: stack.compose("build"))
    timed(f"docker compose -f ... -f {SECOND_FILE} up --wait", lambda: up(stack))
    for service in TWICE:
        if len(stack.compose("ps", "--quiet", service).split()) != 2:
            raise ServerError(f"there are not two of {service}")
    for node in (node for nodes in NODES.values() for node in nodes):
        if not stack.inspect(node)["HostConfig"]["ReadonlyRootfs"]:
            raise ServerError(f"{node} can write to its root file system")
    check_doctor(stack)
    say(stack.compose("ps"))
    writer = Writer(stack)
    writer.start()
    try:
        writer.sends()
        for fail in (fail_redis, fail_rabbitmq, fail_postgres, fail_elasticsearch):
            fail(stack, writer)
            check_doctor(stack)
    finally:
        writer.end()
    check_exactly(stack, writer.acknowledged)
    say(f"{len(writer.acknowledged)} orders acknowledged, each persisted, searchable, in the sales")
    timed("docker compose down -v", lambda: stack.compose("down", "-v"))
    check_nothing_left(stack)


def check_doctor(stack: Stack) -> None:
    """Every store can be used, as an API process finds them; a standby may be asynchronous."""

    def failures() -> list[object]:
        script = "polyglot doctor --json 2>/dev/null"  # its log tells of retries
        text = stack.compose("exec", "--no-TTY", "api", "sh", "-c", script, check=False)
        try:
            return [one for one in json.loads(text) if one["level"] == "FAIL"]
        except ValueError:  # the engine's own words
            return [text]

    try:
        eventually(lambda: not failures(), HEALTHY_SECONDS, "polyglot doctor finds no failure")
    except ServerError as error:
        raise ServerError(f"{error}: {failures()}") from None


def fail_redis(stack: Stack, writer: Writer) -> None:
    """The sentinels promote the replica; the former primary returns as one."""

    def primary() -> str:
        asked = ("redis-cli", "-p", "26379", "sentinel", "get-master-addr-by-name", "polyglot")
        return stack.compose("exec", "--no-TTY", "sentinel-2", *asked).split()[0]

    before = primary()
    other = "redis" if before == "redis-2" else "redis-2"
    kill(stack, writer, before, promoted=lambda: primary() == other)
    script = (
        "REDISCLI_AUTH=$(cat /run/secrets/redis_password) redis-cli info replication"
        " | grep -q 'role:slave\\|master_link_status:down'"
    )
    eventually(
        lambda: not stack.fails(before, "sh", "-c", script), HEALTHY_SECONDS, f"{before} follows"
    )


def fail_rabbitmq(stack: Stack, writer: Writer) -> None:
    """Two of three go on; the third one joins again."""
    kill(stack, writer, "rabbitmq")


def fail_postgres(stack: Stack, writer: Writer) -> None:
    """One command promotes the standby; the former primary returns as its standby."""

    def in_recovery(node: str) -> str:
        query = ("psql", "-U", "postgres", "-Atc", "SELECT pg_is_in_recovery()")
        return stack.compose("exec", "--no-TTY", node, *query, check=False).strip()

    def promoted() -> bool:
        command = ("psql", "-U", "postgres", "-c", "SELECT pg_promote()")
        stack.compose("exec", "--no-TTY", "postgres-2", *command)
        return in_recovery("postgres-2") == "f"

    kill(stack, writer, "postgres", promoted)
    eventually(lambda: in_recovery("postgres") == "t", HEALTHY_SECONDS, "postgres follows")


def fail_elasticsearch(stack: Stack, writer: Writer) -> None:
    """Two of three go on; the third one joins again."""
    kill(stack, writer, "elasticsearch")


def kill(
    stack: Stack, writer: Writer, node: str, promoted: Callable[[], bool] | None = None
) -> None:
    """Kill a node, have it replaced, look for all orders so far, and start it again."""
    writer.restart_clock()
    stack.compose("kill", node)
    replaced = eventually(promoted, HEALTHY_SECONDS, f"{node} is replaced") if promoted else 0.0
    writer.sends()
    whole = wait_complete(stack, writer.acknowledged)
    gap = writer.longest_gap_seconds
    stack.compose("start", node)
    back = stack.wait_healthy(node)
    wait_complete(stack, writer.acknowledged)
    say(
        f"kill     {node:<14} replaced after {replaced:5.1f} s, "
        f"longest wait for a 202 {gap:4.1f} s, "
        f"{len(writer.acknowledged):5} orders whole {whole:4.1f} s later, "
        f"it is healthy {back:5.1f} s after its start"
    )
