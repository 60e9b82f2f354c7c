"""What all commands have in common: how help looks, `--json`, and how errors leave the process.

Exit codes are `EXIT_CODES`, for every command. A group or command of another module is made with
`cls=Commands` or `cls=Command`; those below a group of ours are so by themselves.
"""

import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from polyglot_persistence.errors import ConfigurationError, PolyglotError

if TYPE_CHECKING:
    from polyglot_persistence.bootstrap.operating import Operating
    from polyglot_persistence.config import Settings

_Result = TypeVar("_Result")

INTERRUPTED = 130
"""128 + SIGINT, as shells say it."""

EXIT_CODES = (
    ("0", "Success."),
    ("1", "The command failed, or a check did."),
    ("2", "Wrong usage or an invalid setting; nothing was done."),
    (str(INTERRUPTED), "Stopped with Ctrl-C; finished work is kept."),
)

_EXTRA_OF = {"pamqp": "servers", "elasticsearch": "servers"}
"""What `pip install polyglot-persistence` alone does not bring."""

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def settings_in_effect() -> "Settings":
    """Return the settings of the environment, and say which variables of it are ignored.

    They are taken out of it, so that the processes that a command starts do not say so again.

    Raises:
        ConfigurationError: a setting is wrong.
    """
    from polyglot_persistence.config import load

    settings = load(os.environ)
    for name, reason in settings.ignored.items():
        click.echo(f"polyglot: warning: {name}: {reason}", err=True)
        os.environ.pop(name, None)
        os.environ.pop(f"{name}_FILE", None)
    return settings


def over_stores(
    work: "Callable[[Operating], Coroutine[Any, Any, _Result]]", *, stopped: str = ""
) -> _Result:
    """Return what the work gives over the stores that the settings name; logs go to stderr.

    `stopped` is what a Ctrl-C leaves.
    """
    import asyncio

    from polyglot_persistence.bootstrap import operating
    from polyglot_persistence.telemetry import set_up_logging

    settings = settings_in_effect()
    set_up_logging(settings.log_level, settings.log_format)

    async def run() -> _Result:
        async with operating.opened(settings) as opened:
            return await work(opened)

    try:
        return asyncio.run(run())
    except KeyboardInterrupt:
        if stopped:
            click.echo(f"\nstopped; {stopped}", err=True)
        raise


class _Formatter(click.HelpFormatter):
    """Bold headings; click strips them when the output is no terminal."""

    def write_heading(self, heading: str) -> None:
        self.write(f"{'':>{self.current_indent}}{click.style(heading, bold=True)}:\n")


class _Context(click.Context):
    """A context whose help is formatted by ours, and that heeds NO_COLOR (no-color.org)."""

    formatter_class = _Formatter

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        if os.environ.get("NO_COLOR"):
            self.color = False


def _write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    """Write a line for each, never wrapped, so that it can be copied."""
    if examples:
        with formatter.section("Examples"):
            formatter.write("".join(f"{'':>{formatter.current_indent}}{x}\n" for x in examples))


class Command(click.Command):
    """A command with examples: whole command lines, each of them right as it stands."""

    context_class = _Context

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples below the options."""
        _write_examples(formatter, self.examples)
        super().format_epilog(ctx, formatter)


class Commands(click.Group):
    """A group with examples, whose commands may be listed in sections."""

    context_class = _Context
    command_class = Command
    group_class = type

    def __init__(
        self,
        *arguments: Any,
        examples: Sequence[str] = (),
        sections: Mapping[str, Sequence[str]] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(*arguments, **more)
        self.examples = tuple(examples)
        self.sections = sections or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the sections, else of the alphabet."""
        listed = [name for names in self.sections.values() for name in names]
        return listed + [name for name in super().list_commands(ctx) if name not in listed]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands before the options: users look for them first."""
        self.format_commands(ctx, formatter)
        click.Command.format_options(self, ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section, the columns of all aligned; without sections as click does."""
        if not self.sections:
            super().format_commands(ctx, formatter)
            return
        width = max(map(len, self.commands))
        limit = formatter.width - width - 6
        for heading, names in self.sections.items():
            rows = [
                (name.ljust(width), self.commands[name].get_short_help_str(limit)) for name in names
            ]
            with formatter.section(heading):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, and below the whole program what its exit codes mean."""
        _write_examples(formatter, self.examples)
        if ctx.parent is None:
            with formatter.section("Exit codes"):
                formatter.write_dl(EXIT_CODES)
        super().format_epilog(ctx, formatter)

    def invoke(self, ctx: click.Context) -> Any:
        """Turn the project's errors into one line and an exit code; a bug keeps its traceback."""
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
