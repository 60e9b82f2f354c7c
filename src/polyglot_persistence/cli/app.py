"""The commands."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from polyglot_persistence import __version__
from polyglot_persistence.cli import reports
from polyglot_persistence.cli.api_keys import api_keys
from polyglot_persistence.cli.audit import audit, sales
from polyglot_persistence.cli.command import Commands, as_json, settings_in_effect
from polyglot_persistence.cli.dead_letters import dead_letters
from polyglot_persistence.cli.search import search

if TYPE_CHECKING:
    from polyglot_persistence.config import Settings
    from polyglot_persistence.embedded.supervisor import Companion

LOOPBACK = "127.0.0.1"

SECTIONS = {
    "Start here": ("demo", "up", "load"),
    "Against servers that you run": ("doctor", "migrate", "api", "worker"),
    "For operators": ("search", "audit", "sales", "dead-letters", "api-keys"),
    "About this program": ("config", "completion", "version"),
}
"""Every command, in the order in which a new user needs them."""


def _address(settings: "Settings", host: str | None, port: int | None) -> tuple[str, int]:
    """Return where `up` listens: the options, else the settings; by default on the loopback."""
    from polyglot_persistence.config.addresses.listening import listen_host
    from polyglot_persistence.errors import ConfigurationError

    given = {one.name for one in settings.describe() if one.source != "default"}
    try:
        host = listen_host(host) if host else None
    except ValueError as error:
        raise ConfigurationError(f"--host: {error}") from None
    return host or (settings.api_host if "API_HOST" in given else LOOPBACK), (
        port or settings.api_port
    )


class _Directory(click.Path):
    """A directory; not none, for which a variable stands that is not set."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str | bytes | os.PathLike[str]:
        """Return the path."""
        if value == "":
            self.fail("it is empty; the current directory is '.'", param, ctx)
        return super().convert(value, param, ctx)


@click.group(
    cls=Commands,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Settings come from the environment: `polyglot config --explain` names them all.",
)
@click.version_option(__version__, message="polyglot %(version)s")
@click.option(
    "--stores-of",
    type=_Directory(file_okay=False, path_type=Path),
    metavar="DATA_DIR",
    help="Use the stores of the `polyglot up` with this data directory.",
)
def app(stores_of: Path | None) -> None:
    """An order service that answers in milliseconds, persists behind, and never loses an order.

    `polyglot demo` runs everything on this machine, sends real orders, and opens a page to watch
    them. `polyglot up` does the same without orders. To use your own servers (PostgreSQL, Redis,
    RabbitMQ, Elasticsearch), put their addresses into the settings, check them with
    `polyglot doctor`, and run any number of `polyglot api` and `polyglot worker`.
    """
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]  # a shell's defaults for psql; asyncpg would put them into every DSN
    if stores_of is not None:
        from polyglot_persistence.embedded.addresses import identity_at, read_addresses
        from polyglot_persistence.embedded.launch import take_on

        addresses = read_addresses(stores_of)
        take_on(identity_at(stores_of).argument)
        for name in addresses:
            os.environ.pop(f"{name}_FILE", None)  # it would be a second answer
        os.environ.update(addresses)


_port = click.option(
    "--port",
    type=click.IntRange(1, 65535),
    show_default="API_PORT, or 8080",
    help="Port the API listens on.",
)
_data_dir = partial(
    click.option,
    "--data-dir",
    type=_Directory(file_okay=False, path_type=Path),
    show_default=True,
    help="Data directory; created if missing.",
)
_parent_fd = click.option("--parent-fd", type=int, hidden=True)
"""What `polyglot up` reads, see processes/heartbeat.py."""


@app.command(
    short_help="Run everything, send real orders, open the page.",
    examples=(
        "polyglot demo",
        "polyglot demo --rate 200 --port 8081 --no-open",
    ),
)
@_port
@click.option(
    "--rate",
    type=click.FloatRange(0, 1000, min_open=True),
    default=20,
    show_default=True,
    help="Orders per second.",
)
@_data_dir(default=Path(".demo"))
@click.option("--open/--no-open", "opens_page", default=True, help="Open the page in a browser.")
def demo(port: int | None, rate: float, data_dir: Path, *, opens_page: bool) -> None:
    """Run everything on this machine, send real orders to it, and open a page to watch them.

    The orders come from the data set (`make datasets`), or from a small sample in this program.
    Each is sent as a customer would send it. Ctrl-C stops everything; the data stays, and the next
    demo continues with it. To start over, delete the data directory.
    """
    from polyglot_persistence.cli.demonstration.demo import Demo

    os.environ.setdefault("LOG_LEVEL", "error")  # also of API and worker: people read this
    settings = settings_in_effect()
    shown = Demo(rate=rate, data_dir=data_dir, opens_page=opens_page)
    click.echo("starting PostgreSQL, Valkey, API and worker ...", err=True)
    _run_up(settings, LOOPBACK, port or settings.api_port, data_dir, shown.show)
    click.echo(
        f"\nstopped after {shown.tally.accepted:,} orders; they are in {data_dir}: "
        "run it again to go on",
        err=True,
    )


@app.command(
    short_help="Run everything on this machine.",
    examples=(
        "polyglot up",
        "polyglot up --port 8081 --data-dir /var/lib/polyglot",
    ),
)
@_port
@click.option("--host", show_default=f"API_HOST, or {LOOPBACK}", help="Address the API listens on.")
@_data_dir(default=Path(".data"))
def up(port: int | None, host: str | None, data_dir: Path) -> None:
    """Run everything on this machine until Ctrl-C or SIGTERM.

    Starts the bundled PostgreSQL and Valkey, the API and a worker, and prints one line with the
    URL when they are ready. Logs go to stderr. The data stays, and the next start continues with
    it. To run two side by side, give each its own port and data directory.
    """
    settings = settings_in_effect()  # report a wrong setting here, once, before two processes do
    _run_up(settings, *_address(settings, host, port), data_dir)


def _run_up(
    settings: "Settings",
    host: str,
    port: int,
    data_dir: Path,
    companion: "Companion | None" = None,
) -> None:
    import asyncio

    from polyglot_persistence.embedded import supervisor
    from polyglot_persistence.telemetry import set_up_logging

    set_up_logging(settings.log_level, settings.log_format)
    asyncio.run(
        supervisor.up(
            host=host,
            port=port,
            data_dir=data_dir.absolute(),
            shutdown_timeout_seconds=settings.api_stop_seconds,
            companion=companion,
        )
    )


@app.command(
    short_help="Run the HTTP API alone.",
    examples=(
        "polyglot api",
        "REDIS_ADDR=redis:6379 RABBITMQ_URL=amqp://queue polyglot api",
        "API_PORT=8081 polyglot api",
        "API_PROCESSES=4 API_PROCESS_PORT=9100 polyglot api",
    ),
)
@_parent_fd
@click.pass_context
def api(ctx: click.Context, parent_fd: int | None) -> None:
    """Run the HTTP API alone until SIGTERM.

    It starts without its stores and connects to each at its first use. With API_PROCESSES above 1,
    that many processes share the port, and one that dies or hangs is restarted. Any number of these
    commands may run, each on its own port.
    """
    from polyglot_persistence import bootstrap

    ctx.exit(bootstrap.run_api(settings_in_effect(), parent_fd))


@app.command(
    short_help="Run a worker alone.",
    examples=(
        "polyglot worker",
        "POSTGRES_DSN=postgresql://record/orders RABBITMQ_URL=amqp://queue polyglot worker",
    ),
)
@_parent_fd
@click.pass_context
def worker(ctx: click.Context, parent_fd: int | None) -> None:
    """Run a worker alone until SIGTERM: it persists, indexes, sweeps and refreshes.

    Any number of workers may run at the same time.
    """
    from polyglot_persistence import bootstrap

    ctx.exit(bootstrap.run_worker(settings_in_effect(), parent_fd))


@app.command(
    short_help="Bring PostgreSQL's schema up to date.",
    examples=(
        "polyglot migrate",
        "POSTGRES_DSN=postgresql://record/orders polyglot migrate",
        "POSTGRES_SUPERUSER_DSN=postgresql://postgres@record/orders polyglot migrate",
    ),
)
@as_json
@click.option("--log", "logs", is_flag=True, hidden=True)
def migrate(*, as_json: bool, logs: bool) -> None:
    """Bring PostgreSQL's schema up to date.

    API and worker also do this when they start; any number may run at the same time.

    With POSTGRES_SUPERUSER_DSN in the environment it also makes the role that POSTGRES_DSN names,
    with its password and no more rights than API and worker use, and lets another role own the
    schema. Before a new version starts, run it again.
    """
    from polyglot_persistence import bootstrap
    from polyglot_persistence.telemetry import set_up_logging

    settings = settings_in_effect()
    if logs:  # as a part of `polyglot up`
        set_up_logging(settings.log_level, settings.log_format)
    superuser_dsn = os.environ.get(bootstrap.SUPERUSER_DSN, "").strip()
    if superuser_dsn:
        applied = bootstrap.migrate_with_roles(settings, superuser_dsn)
    else:
        applied = bootstrap.migrate(settings)
    if logs:
        return
    if as_json:
        click.echo(reports.as_json({"applied": applied}))
        return
    for name in applied:
        click.echo(f"applied {name}")
    if not applied:
        click.echo("up to date")


@app.command(
    short_help="Print the settings in effect.",
    examples=(
        "polyglot config",
        "polyglot config --explain",
        "polyglot config --json | jq '.[] | select(.source != \"default\")'",
    ),
)
@as_json
@click.option("--explain", is_flag=True, help="Explain each setting and its allowed values.")
def config(*, as_json: bool, explain: bool) -> None:
    """Print the settings in effect and the source of each. Passwords are masked."""
    settings = settings_in_effect().describe()
    if as_json:
        click.echo(reports.as_json([setting._asdict() for setting in settings]))
    elif explain:
        click.echo(reports.explained(settings))
    else:
        rows = [(setting.name, setting.value, setting.source) for setting in settings]
        click.echo(reports.table(("SETTING", "VALUE", "SOURCE"), rows))


@app.command(
    short_help="Check each store and its settings.",
    examples=(
        "polyglot doctor",
        "polyglot --stores-of .data doctor",
        "REDIS_ADDR=redis:6379 polyglot doctor --json",
    ),
)
@as_json
@click.pass_context
def doctor(ctx: click.Context, *, as_json: bool) -> None:
    """Check each store: whether it answers, its version, and settings that break a guarantee.

    Changes nothing. Exits with 1 if a check FAILs; a WARN is still 0.
    """
    from polyglot_persistence import bootstrap

    findings = bootstrap.doctor(settings_in_effect())
    if as_json:
        click.echo(reports.as_json([finding._asdict() for finding in findings]))
    else:
        click.echo(reports.findings(findings))
    ctx.exit(any(finding.level == "FAIL" for finding in findings))


@app.command(
    short_help="Send real orders and check every day to the cent.",
    examples=(
        "polyglot load completejourney --limit 100000",
        "polyglot load completejourney --url http://orders.example:8080 --json",
    ),
)
@click.argument("dataset", type=click.Choice(["completejourney"]))
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Send only the first N of 1,469,307 order lines.",
)
@click.option(
    "--url",
    default="http://127.0.0.1:8080",
    show_default=True,
    help="URL of the API.",
)
@click.option(
    "--api-key",
    envvar="POLYGLOT_API_KEY",
    show_envvar=True,
    help="API key with the scopes read, write and admin.",
)
@as_json
@click.pass_context
def load(
    ctx: click.Context,
    dataset: str,
    limit: int | None,
    url: str,
    api_key: str | None,
    *,
    as_json: bool,
) -> None:
    """Send real orders through the API and check the answers against the file, to the cent.

    DATASET is completejourney: a year of grocery order lines (`make datasets` installs it). At the
    end, the number of orders and the revenue of every day are compared; the exit code is 0 only if
    all are equal. Orders that are already stored are not stored again, so an interrupted load can
    be run again to resume.
    """
    from polyglot_persistence.cli.demonstration import loading

    del dataset  # there is one
    ctx.exit(loading.run(url, limit, api_key, for_programs=as_json))


app.add_command(audit)
app.add_command(sales)
app.add_command(dead_letters)
app.add_command(search)
app.add_command(api_keys)


@app.command(
    short_help="Print a shell's completion.",
    examples=(
        'eval "$(polyglot completion bash)"',
        "polyglot completion zsh > ~/.zfunc/_polyglot",
        "polyglot completion fish > ~/.config/fish/completions/polyglot.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes `polyglot` in a shell.

    For bash, put the first example into ~/.bashrc. For zsh, the directory of the second has to be
    in fpath before compinit. It works where `polyglot` is on the PATH.
    """
    from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

    kinds: dict[str, type[ShellComplete]] = {
        "bash": BashComplete,
        "zsh": ZshComplete,
        "fish": FishComplete,
    }
    click.echo(kinds[shell](app, {}, "polyglot", "_POLYGLOT_COMPLETE").source())


@app.command(examples=("polyglot version", "polyglot version --json"))
@as_json
def version(*, as_json: bool) -> None:
    """Print the version."""
    click.echo(reports.as_json({"version": __version__}) if as_json else f"polyglot {__version__}")
