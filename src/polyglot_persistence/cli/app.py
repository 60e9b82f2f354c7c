"""The commands, and how their errors leave the process."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polyglot_persistence import __version__
from polyglot_persistence.cli.api_keys import api_keys
from polyglot_persistence.cli.dead_letters import dead_letters
from polyglot_persistence.errors import ConfigurationError, PolyglotError

if TYPE_CHECKING:
    from polyglot_persistence.config import Settings

INTERRUPTED = 130
"""128 + SIGINT, as shells say it."""

_EXTRA_OF = {"pamqp": "servers", "elasticsearch": "servers"}
"""What `pip install polyglot-persistence` alone does not bring."""


class _Commands(click.Group):
    """Turns the project's errors into one line and an exit code; a bug keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        if os.environ.get("NO_COLOR"):  # no-color.org; click leaves it to us
            ctx.color = False
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            click.echo(f"polyglot: {error}", err=True)
            ctx.exit(2)
        except PolyglotError as error:
            click.echo(f"polyglot: {error}", err=True)
            ctx.exit(1)
        except ModuleNotFoundError as error:
            extra = _EXTRA_OF.get((error.name or "").partition(".")[0])
            if extra is None:
                raise
            click.echo(
                f"polyglot: {error.name} is not installed; "
                f"run `pip install 'polyglot-persistence[{extra}]'`",
                err=True,
            )
            ctx.exit(2)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


def _settings() -> "Settings":
    from polyglot_persistence.config import load

    return load(os.environ)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Settings come from the environment: see `polyglot config`.",
)
@click.version_option(__version__, message="polyglot %(version)s")
def app() -> None:
    """Order service: acknowledges in milliseconds, persists behind, never loses an order.

    \b
      polyglot up                              everything on this machine, no other server needed
      polyglot load completejourney            a year of real orders, checked to the cent
      polyglot api, polyglot worker            the parts, against servers that you run
    """  # noqa: D301  \b is click's: keep these lines as they are


@app.command(short_help="Run everything on this machine.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8080,
    envvar="API_PORT",
    show_default=True,
    show_envvar=True,
    help="Port the API listens on.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address it listens on.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".data"),
    show_default=True,
    help="Where everything is kept; made if it is not there.",
)
def up(port: int, host: str, data_dir: Path) -> None:
    """Run everything on this machine until Ctrl-C or SIGTERM.

    Starts the bundled PostgreSQL and Valkey, the API and a worker, and prints one line with the
    URL when they are ready. Two of them run side by side with other ports and directories.

    \b
      polyglot up
      polyglot up --port 8081 --data-dir /var/lib/polyglot
    """  # noqa: D301
    import asyncio

    from polyglot_persistence.embedded.supervisor import up as run
    from polyglot_persistence.telemetry import set_up_logging

    settings = _settings()  # a wrong limit is better told now than by two processes
    set_up_logging(settings.log_level, settings.log_format)
    asyncio.run(
        run(
            host=host,
            port=port,
            data_dir=data_dir.absolute(),
            shutdown_timeout_seconds=settings.shutdown_timeout_seconds,
        )
    )


@app.command(short_help="Run the HTTP API alone.")
@click.pass_context
def api(ctx: click.Context) -> None:
    """Run the HTTP API alone until SIGTERM.

    \b
      REDIS_ADDR=redis:6379 RABBITMQ_URL=amqp://... polyglot api
    """  # noqa: D301
    from polyglot_persistence import bootstrap

    ctx.exit(bootstrap.run_api(_settings()))


@app.command(short_help="Run a worker alone.")
@click.pass_context
def worker(ctx: click.Context) -> None:
    """Run a worker alone until SIGTERM: it persists, indexes, sweeps and refreshes.

    As many as you like may run at the same time.

    \b
      POSTGRES_DSN=postgresql://... RABBITMQ_URL=amqp://... polyglot worker
    """  # noqa: D301
    from polyglot_persistence import bootstrap

    ctx.exit(bootstrap.run_worker(_settings()))


@app.command()
def migrate() -> None:
    """Bring PostgreSQL's schema up to date.

    API and worker do so too when they start; any number may try at the same time.
    """
    from polyglot_persistence import bootstrap

    applied = bootstrap.migrate(_settings())
    for name in applied:
        click.echo(f"applied {name}")
    if not applied:
        click.echo("up to date")


@app.command(short_help="Print the settings in effect.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--explain", is_flag=True, help="Say what each setting means and may be.")
def config(*, as_json: bool, explain: bool) -> None:
    """Print the settings in effect, where each comes from, and no password.

    \b
      polyglot config
      polyglot config --json | jq '.[] | select(.source != "default")'
    """  # noqa: D301
    from polyglot_persistence.cli import reports

    settings = _settings().describe()
    if as_json:
        click.echo(reports.as_json([setting._asdict() for setting in settings]))
    elif explain:
        click.echo(reports.explained(settings))
    else:
        rows = [(setting.name, setting.value, setting.source) for setting in settings]
        click.echo(reports.table(("SETTING", "VALUE", "SOURCE"), rows))


@app.command(short_help="Check each store and its settings.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(ctx: click.Context, *, as_json: bool) -> None:
    """Check each store: reachable, its version, settings that would break a promise.

    Changes nothing. Exits with 1 if a check FAILs; a WARN is still 0.
    """
    from polyglot_persistence import bootstrap
    from polyglot_persistence.cli import reports

    findings = bootstrap.doctor(_settings())
    if as_json:
        click.echo(reports.as_json([finding._asdict() for finding in findings]))
    else:
        click.echo(reports.findings(findings))
    ctx.exit(any(finding.level == "FAIL" for finding in findings))


@app.command(short_help="Send real orders and check every day to the cent.")
@click.argument("dataset", type=click.Choice(["completejourney"]))
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Take only the first N order lines of the 1,469,307.",
)
@click.option(
    "--url",
    default="http://127.0.0.1:8080",
    show_default=True,
    help="The API to send them to.",
)
@click.option(
    "--api-key",
    envvar="POLYGLOT_API_KEY",
    show_envvar=True,
    help="An API key for it, with the scopes read, write and admin.",
)
@click.pass_context
def load(
    ctx: click.Context, dataset: str, limit: int | None, url: str, api_key: str | None
) -> None:
    """Send real orders through the API and check the answers against the file, to the cent.

    DATASET is completejourney: a year of grocery order lines. At the end the number of orders and
    the revenue of every day are compared; the exit code is 0 only if all are equal. What is there
    already is not stored again, so a load that was stopped goes on when it is run again.

    \b
      polyglot load completejourney --limit 100000
      polyglot load completejourney --url http://orders.example:8080
    """  # noqa: D301
    from polyglot_persistence.cli import loading

    del dataset  # there is one
    ctx.exit(loading.run(url, limit, api_key))


app.add_command(dead_letters)
app.add_command(api_keys)


@app.command()
def version() -> None:
    """Print the version."""
    click.echo(f"polyglot {__version__}")
