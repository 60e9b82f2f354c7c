"""What is done to the stack, and what must hold afterwards."""

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

from real_servers.machine import ServerError

from compose_test import hardening
from compose_test.engine import Engine, kill
from compose_test.images import public_images
from compose_test.orders import Writer, check_exactly, wait_complete
from compose_test.stack import HEALTHY_SECONDS, OURS, SERVICES, STORES, Stack, eventually

STOP_SECONDS_MAX = 15


def say(text: str) -> None:
    print(text, flush=True)


def timed(what: str, action: Callable[[], object]) -> None:
    begun = time.monotonic()
    action()
    say(f"{what:<44} {time.monotonic() - begun:6.1f} s")


def check(engine: Engine) -> None:
    """Do everything once; the first thing that does not hold ends it."""
    stack = Stack(engine)
    clear(stack)
    try:
        run(stack)
    finally:
        stack.compose("down")  # with its network; after a failure the data stays
        engine.docker("image", "prune", "--force")  # what this run's images have replaced


def clear(stack: Stack) -> None:
    """Remove what a run that was broken off has left."""
    stack.compose("down", "--volumes")
    stack.engine.docker("volume", "prune", "--all", "--force")


def check_nothing_left(stack: Stack) -> None:
    """After `down -v` there is no volume, not even one without a name."""
    left = stack.engine.docker("volume", "ls", "--quiet").stdout.split()
    if left:
        raise ServerError(f"`down -v` has left {left}")
    say("`down -v` leaves nothing")


def run(stack: Stack) -> None:
    """Bring the stack up, break each part of it under orders, take it down."""
    timed("docker compose build", lambda: stack.compose("build"))
    with stack.engine.events("start", "health_status") as events:
        timed("docker compose up --build --wait", lambda: up(stack))
        check_order(events)
    check_ports(stack)
    check_containers(stack)
    hardening.check(stack)
    say(stack.compose("ps"))
    say_sizes(stack.engine)

    writer = Writer(stack)
    writer.start()
    try:
        writer.sends()
        for service in SERVICES:
            restart(stack, service, writer)
            crash(stack, service, writer)
    finally:
        writer.end()
    acknowledged = writer.acknowledged
    check_exactly(stack, acknowledged)
    say(f"{len(acknowledged)} orders acknowledged: each is persisted, searchable and in the sales")

    check_stop(stack)
    timed("docker compose down", lambda: stack.compose("down"))
    two = ("up", "--wait", "--scale=worker=2")
    timed(f"docker compose {' '.join(two)}", lambda: stack.compose(*two))
    if len(stack.compose("ps", "--quiet", "worker").split()) != 2:
        raise ServerError("there are not two workers")
    check_exactly(stack, acknowledged)
    say("all of them are there after `down` and `up`")
    timed("docker compose down -v", lambda: stack.compose("down", "-v"))
    check_nothing_left(stack)

    stack.take_own_passwords()
    timed("docker compose up --wait, SECRETS_DIR=...", lambda: up(stack))
    check_containers(stack)
    hardening.check(stack)
    hardening.check_nothing_shows(stack)
    say("other passwords are in force everywhere, and shown nowhere")
    stack.compose("down", "-v")


def say_sizes(engine: Engine) -> None:
    """Our images, and what of them is not their base, which is a stand-in."""
    base = image_bytes(engine, public_images()["python"])
    for service in OURS:
        size = image_bytes(engine, f"polyglot-persistence-{service}")
        say(f"image of {service:<8} {(size - base) / 1e6:.0f} MB on top of Python's")


def image_bytes(engine: Engine, image: str) -> int:
    return int(engine.docker("image", "inspect", "--format={{.Size}}", image).stdout)


def up(stack: Stack) -> None:
    """Bring everything up; if that fails, show what the services say."""
    try:
        stack.compose("up", "--build", "--wait")
    except ServerError:
        say(stack.compose("ps", "--all", check=False))
        say(stack.compose("logs", "--tail=15", check=False))
        raise


def check_order(events: Path) -> None:
    """Each service was started when what it depends on was healthy."""
    started: dict[str, int] = {}
    healthy: dict[str, int] = {}
    for line in events.read_text().splitlines():
        event = json.loads(line)
        service = event["Actor"]["Attributes"]["com.docker.compose.service"]
        if event["Action"] == "start":
            started.setdefault(service, event["timeNano"])
        elif event["Action"] == "health_status: healthy":
            healthy.setdefault(service, event["timeNano"])
    after = {**dict.fromkeys(OURS, STORES), "kibana": ("elasticsearch",)}
    for service, others in after.items():
        early = [other for other in others if healthy[other] > started[service]]
        if early:
            raise ServerError(f"{service} was started before {early} were healthy")
    first = min(started.values())
    for service in sorted(SERVICES, key=started.__getitem__):
        begun, well = ((moment[service] - first) / 1e9 for moment in (started, healthy))
        say(f"  {service:<14} started after {begun:5.1f} s, healthy after {well:5.1f} s")


def check_ports(stack: Stack) -> None:
    """Everything that is to be reached from outside is, on the loopback."""
    for port in stack.ports.values():
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


def check_containers(stack: Stack) -> None:
    """Our containers are as tight as they are meant to be, and find the stores as they should."""
    for service in OURS:
        if stack.compose("exec", "--no-TTY", service, "id", "-u").strip() != "10001":
            raise ServerError(f"{service} runs as another user")
        for command in ("touch /opt/polyglot/new", "command -v gcc || command -v cc"):
            if not stack.fails(service, "sh", "-c", command):
                raise ServerError(f"{service}: `{command}` should fail")
        first = stack.compose("exec", "--no-TTY", service, "cat", "/proc/1/cmdline")
        if f"polyglot\0{service}" not in first:
            raise ServerError(f"{service}: signals reach {first!r}")
        status = stack.compose("exec", "--no-TTY", service, "cat", "/proc/1/status").split()
        for name, wanted in (("CapEff:", "0000000000000000"), ("NoNewPrivs:", "1")):
            if status[status.index(name) + 1] != wanted:
                raise ServerError(f"{service}: {name} {status[status.index(name) + 1]}")
    doctor = stack.compose("exec", "--no-TTY", "api", "polyglot", "doctor", "--json")
    wrong = [finding for finding in json.loads(doctor) if finding["level"] != "PASS"]
    if wrong:
        raise ServerError(f"polyglot doctor: {wrong}")


def restart(stack: Stack, service: str, writer: Writer) -> None:
    """Restart a service as an operator does, under orders."""
    break_it(stack, service, writer, "restart", lambda: stack.compose("restart", service))


def crash(stack: Stack, service: str, writer: Writer) -> None:
    """Kill a service's main process behind the engine's back: the restart policy brings it back."""
    before = stack.inspect(service)
    pid = before["State"]["Pid"]

    def kill_it() -> None:
        kill(pid)
        eventually(  # until the engine has noticed, the container still is what it was
            lambda: stack.inspect(service)["State"]["Pid"] not in (0, pid),
            HEALTHY_SECONDS,
            f"{service} started again",
        )

    break_it(stack, service, writer, "kill -9", kill_it)
    if stack.inspect(service)["RestartCount"] != before["RestartCount"] + 1:
        raise ServerError(f"{service} was not restarted once")


def break_it(
    stack: Stack, service: str, writer: Writer, how: str, action: Callable[[], object]
) -> None:
    """Break a service; afterwards it is well, orders are taken, and all so far are complete."""
    writer.restart_clock()
    begun = time.monotonic()
    action()
    stack.wait_healthy(service)
    healthy_seconds = time.monotonic() - begun
    writer.sends()
    gap_seconds = writer.longest_gap_seconds
    whole_seconds = wait_complete(stack, writer.acknowledged)
    say(
        f"{how:<8} {service:<14} healthy after {healthy_seconds:5.1f} s, "
        f"longest wait for a 202 {gap_seconds:4.1f} s, "
        f"{len(writer.acknowledged):5} orders whole {whole_seconds:4.1f} s later"
    )


def check_stop(stack: Stack) -> None:
    """A stop ends our processes by themselves, in order, long before they are killed."""
    for service in OURS:
        begun = time.monotonic()
        stack.compose("stop", service)
        seconds = time.monotonic() - begun
        code = stack.inspect(service)["State"]["ExitCode"]
        if code != 0 or seconds > STOP_SECONDS_MAX:
            raise ServerError(f"{service} stopped with {code} after {seconds:.1f} s")
        say(f"stop     {service:<14} exit code 0 after {seconds:.1f} s")
