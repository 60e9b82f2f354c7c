"""Runs benches: `python -m bench`, or `make bench`.

BENCHES=accept,read    only these; without it, all of the quick set
PEER=directory         the Go peer's source; without it, this project is measured alone
"""

import asyncio
import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from bench import machine, orders, report
from bench.benches import (
    accept,
    bulk,
    drain,
    embedded,
    end_to_end,
    growth,
    lag,
    read,
    refresh,
    scale,
    search,
)
from bench.context import Context
from bench.figures import BenchResult
from bench.sides import Peer, Product

ROOT = Path(__file__).parents[1]
RUNS = ROOT / ".cache" / "bench"
SERVERS = ("redis", "rabbitmq", "postgres", "elasticsearch")
QUICK = {
    "accept": accept.run,
    "bulk": bulk.run,
    "read": read.run,
    "drain": drain.run,
    "end-to-end": end_to_end.run,
    "lag": lag.run,
    "refresh": refresh.run,
    "search": search.run,
}
"""In the order in which they run: those that store much come last."""

BENCHES = {**QUICK, "embedded": embedded.run, "growth": growth.run, "scale": scale.run}


@click.command()
@click.option("--benches", envvar="BENCHES", default=",".join(QUICK), help="Names, by commas.")
@click.option(
    "--peer",
    envvar="PEER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Source of the Go peer.",
)
@click.option("--full", is_flag=True, help="More and longer rounds.")
@click.option("--record", is_flag=True, help="Keep the figures: in bench/ and docs/.")
def main(benches: str, peer: Path | None, *, full: bool, record: bool) -> None:
    """Measure this project beside the Go peer on real servers, and compare with the last record."""
    names = [name.strip() for name in benches.split(",") if name.strip()]
    if unknown := [name for name in names if name not in BENCHES]:
        raise click.UsageError(f"no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    for tool in ("wrk", *(("go",) if peer else ())):
        if shutil.which(tool) is None:
            raise click.UsageError(f"{tool} is needed: on Debian, apt-get install {tool}")
    servers = start_servers()
    try:
        results = asyncio.run(_run(names, servers, peer, quick=not full))
    except asyncio.CancelledError:
        sys.stderr.write("bench: stopped; what was started is stopped, the servers run on\n")
        sys.exit(130)
    before = report.read(report.RECORD)
    click.echo(report.table(list(results.values())))
    click.echo("\n" + report.memory_table(list(results.values())))
    click.echo("\nsince the last record:")
    for line in report.compared(before, results) if before else ["there is none"]:
        click.echo(f"  {line}")
    if record:
        kept = {name: found for name in BENCHES if (found := {**before, **results}.get(name))}
        report.write(report.RECORD, kept)
        from bench import plots  # noqa: PLC0415  matplotlib takes a second

        plots.draw(kept)
        report.put_into_page(kept)
    if len(results) < len(names):
        sys.exit(1)


def start_servers() -> Mapping[str, str]:
    """Start the real servers that do not run; return the settings that reach them."""
    script = str(ROOT / "scripts" / "servers")
    subprocess.run([script, "up", *SERVERS], check=True, stdout=sys.stderr)
    found = subprocess.run(
        [script, "env"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    pairs = (line.removeprefix("export ").split("=", 1) for line in found)
    return {name: value.strip("'") for name, value in pairs}


async def _run(
    names: Sequence[str], servers: Mapping[str, str], peer_source: Path | None, *, quick: bool
) -> dict[str, BenchResult]:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    RUNS.mkdir(parents=True, exist_ok=True)
    results: dict[str, BenchResult] = {}
    with tempfile.TemporaryDirectory(prefix="polyglot-bench-") as path:
        directory = Path(path)
        lines = orders.lines()
        files = orders.write(directory, lines)
        product = Product(servers, RUNS)
        peer = None if peer_source is None else Peer(servers, peer_source, directory)
        context = Context(product, peer, lines, files, directory, RUNS, quick)
        try:
            for name in names:
                results.update(await _bench(context, name, servers))
                # Kept bench by bench, so that one that fails costs nothing of the others.
                report.write(
                    RUNS / "last-run.json", {**report.read(RUNS / "last-run.json"), **results}
                )
        finally:
            for side in context.sides():
                await side.stop()
    return results


async def _bench(context: Context, name: str, servers: Mapping[str, str]) -> dict[str, BenchResult]:
    context.tell(f"{name} begins; load average {machine.load_average():.1f}")
    started = time.monotonic()
    try:
        async with context.memory() as memory:
            figures = await BENCHES[name](context)
        facts = await machine.facts(context.product, servers)
    except Exception as error:  # noqa: BLE001  the other benches are worth their figures
        context.tell(f"{name} FAILED: {type(error).__name__}: {error}")
        return {}
    finally:
        for side in context.sides():
            with contextlib.suppress(OSError):
                await side.stop()
    return {
        name: BenchResult(
            name,
            datetime.now(UTC).isoformat(timespec="seconds"),
            machine.commit(ROOT),
            time.monotonic() - started,
            context.quick,
            list(figures),
            memory,
            facts,
        )
    }


if __name__ == "__main__":
    main()
