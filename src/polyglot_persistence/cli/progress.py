"""Shows the progress of a long command on stderr: a bar on a terminal, periodic lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

PLAIN_LINE_SECONDS = 5.0


class Progress:
    """Counts orders up to a total, if one is known, and calls `show`."""

    def __init__(
        self, total: int | None, *, show: Callable[[int], None], say: Callable[[str], None]
    ) -> None:
        self.total = total
        self.done = 0
        self._show = show
        self.say = say

    def advance(self, orders: int) -> None:
        """Count more orders as done."""
        self.done += orders
        self._show(self.done)


@contextmanager
def progress(total: int | None) -> Iterator[Progress]:
    """Show the progress of `total` orders with rate and remaining time while the context lasts.

    None is for as many as there will be: then there is no remaining time.
    """
    if sys.stderr.isatty():
        with _bar(total) as shown:
            yield shown
    else:
        yield _plain(total)


@contextmanager
def _bar(total: int | None) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    with Bar(
        BarColumn(),
        TaskProgressColumn(show_speed=False),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        task = bar.add_task("orders", total=total, rate="")
        started = time.monotonic()

        def show(done: int) -> None:
            rate = done / max(time.monotonic() - started, 0.001)
            bar.update(task, completed=done, rate=f"{rate:,.0f}/s")

        yield Progress(total, show=show, say=lambda text: console.print(text, markup=False))


def _plain(total: int | None) -> Progress:
    started = time.monotonic()
    last = started

    def show(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < PLAIN_LINE_SECONDS and done != total:
            return
        last = now
        rate = done / max(now - started, 0.001)
        if total is None:
            click.echo(f"{done:,} orders, {rate:,.0f}/s", err=True)
            return
        left = (total - done) / rate
        click.echo(
            f"{done:,} of {total:,} orders ({done / total:.0%}), {rate:,.0f}/s, {left:.0f} s left",
            err=True,
        )

    return Progress(total, show=show, say=lambda text: click.echo(text, err=True))
