"""`polyglot search`: rebuild the search index while everything runs."""

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import click

from polyglot_persistence.cli import reports
from polyglot_persistence.cli.command import Commands, as_json, settings_in_effect
from polyglot_persistence.cli.progress import Progress, progress

if TYPE_CHECKING:
    from polyglot_persistence.bootstrap.operating import Operating
    from polyglot_persistence.config import Settings
    from polyglot_persistence.flows.projections.rebuild import Rebuilt, Step

LOOK_SECONDS = 0.5


@click.group(
    cls=Commands,
    short_help="Maintain the search index.",
    examples=("polyglot search rebuild", "polyglot --stores-of .data search rebuild"),
)
def search() -> None:
    """Maintain the search index.

    The index is a projection of PostgreSQL and can be rebuilt at any time. A worker rebuilds it
    if it is missing, damaged, or of a version that this program does not use.
    """


@search.command(
    short_help="Rebuild the index while orders come in.",
    examples=("polyglot search rebuild", "polyglot search rebuild --rate 5000 --json"),
)
@click.option(
    "--rate",
    type=click.IntRange(1, 1_000_000),
    metavar="N",
    help="Maximum orders per second; default SEARCH_REBUILD_ORDERS_PER_SECOND.",
)
@as_json
def rebuild(rate: int | None, *, as_json: bool) -> None:
    """Build a new index from PostgreSQL, verify it, and swap it for the old one.

    Searches use the old index until the swap and never see a part of the new one. If interrupted,
    run it again (or let a worker) to resume. If another process rebuilds already, this command
    shows its progress.
    """
    import asyncio

    try:
        rebuilt = asyncio.run(_rebuild(settings_in_effect(), rate, quiet=as_json))
    except KeyboardInterrupt:
        click.echo("\nstopped; run it again to resume", err=True)
        raise
    if rebuilt is None:
        click.echo(
            reports.as_json({"done_by": "another process"})
            if as_json
            else "done, by another process"
        )
    elif as_json:
        click.echo(reports.as_json(rebuilt._asdict()))
    else:
        click.echo(
            f"{rebuilt.index_name} took over with {rebuilt.orders:,} orders"
            + (f", {rebuilt.mended:,} mended" if rebuilt.mended else "")
            + (", begun by an earlier run" if rebuilt.resumed else "")
        )


async def _rebuild(settings: "Settings", rate: int | None, *, quiet: bool) -> "Rebuilt | None":
    from polyglot_persistence.bootstrap.operating import opened
    from polyglot_persistence.flows.projections.rebuild import ROLE

    if rate is not None:
        limits = replace(settings.index, search_rebuild_orders_per_second=rate)
        settings = replace(settings, index=limits)
    async with opened(settings) as operating:
        with _Shown(quiet=quiet) as shown:
            async with operating.stores.record.lead(ROLE) as lead:
                if lead is not None:

                    async def show(step: "Step") -> None:
                        await lead.confirm()
                        shown.step(step)

                    return await operating.rebuild.run(show)
            await _follow(operating, shown)
    return None


async def _follow(operating: "Operating", shown: "_Shown") -> None:
    import asyncio

    from polyglot_persistence.flows.projections.rebuild import Phase, Step

    while (state := await operating.rebuild.progress()) is not None:
        shown.step(Step(Phase.FILL, state.filled, max(state.total, state.filled)))
        await asyncio.sleep(LOOK_SECONDS)


class _Shown:
    """A progress bar for each phase, on stderr."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bars = ExitStack()
        self._bar: Progress | None = None
        self._phase = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.close()

    def step(self, step: "Step") -> None:
        """Show the progress of a phase."""
        if self._quiet or not step.total:
            return
        if self._bar is None or step.phase.value != self._phase:
            self._bars.close()
            self._phase = step.phase.value
            click.echo(f"{self._phase}:", err=True)
            self._bar = self._bars.enter_context(progress(step.total))
        self._bar.advance(step.done - self._bar.done)
