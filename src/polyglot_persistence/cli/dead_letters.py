"""`polyglot dead-letters`: list, show, replay, discard.

The commands work directly on the stores in the settings; no API and no worker has to run.

Invariant: only letters selected by ids, by filters or by `--all` are replayed or discarded.
Invariant: payloads and reasons reach a terminal only as printable text.
"""

import base64
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from polyglot_persistence.cli import reports
from polyglot_persistence.cli.command import Commands, as_json, over_stores
from polyglot_persistence.cli.progress import progress
from polyglot_persistence.domain.dead_letter import (
    DeadLetterRow,
    LetterCounts,
    LetterFilter,
    Stage,
)
from polyglot_persistence.errors import NotFoundError, PolyglotError

if TYPE_CHECKING:
    from polyglot_persistence.bootstrap.operating import Operating
    from polyglot_persistence.flows.behind.dead_letters import Action, DeadLetterFlow, Handled

REASON_SHOWN_MAX = 120
KEPT_SHOWN_MAX = 20
KEPT_LISTED_MAX = 1_000

_REASON = re.compile(r"[^\x00\ud800-\udfff]+")

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _moment(_ctx: click.Context, _param: click.Parameter, text: str | None) -> datetime | None:
    """Return a date, or a date with a time; in UTC, unless it says otherwise."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is not a date or time; e.g. 2026-01-31 or 2026-01-31T12:00:00+01:00"
        ) from None


_FILTERS = (
    click.option("--reason", metavar="TEXT", help="Reason contains TEXT."),
    click.option(
        "--stage", type=click.Choice([stage.value for stage in Stage]), help="Failed in this stage."
    ),
    click.option("--order", "order_id", type=click.UUID, metavar="ID", help="Of the order ID."),
    click.option("--unit", "unit_id", type=click.UUID, metavar="ID", help="Of the bulk ID."),
    click.option(
        "--since", callback=_moment, metavar="MOMENT", help="Last failed at or after MOMENT (UTC)."
    ),
    click.option(
        "--until", callback=_moment, metavar="MOMENT", help="Last failed before MOMENT (UTC)."
    ),
)


def _filters(command: _Command) -> _Command:
    for option in reversed(_FILTERS):
        command = option(command)
    return command


def _chosen(filters: Mapping[str, Any]) -> LetterFilter:
    reason, stage = filters["reason"], filters["stage"]
    if reason is not None and not _REASON.fullmatch(reason):
        raise click.UsageError("--reason: empty, or with a character that no reason contains")
    return LetterFilter(**{**filters, "stage": None if stage is None else Stage(stage)})


@click.group(
    "dead-letters",
    cls=Commands,
    short_help="Orders that can never be persisted or indexed.",
    examples=(
        "polyglot dead-letters list --reason overflow",
        "polyglot dead-letters show 17",
        "polyglot dead-letters replay --stage persist --since 2026-01-31",
    ),
)
def dead_letters() -> None:
    """List, show, replay or discard orders that can never be persisted or indexed.

    Works directly on the stores in the settings; no API has to run. A bulk is handled as a whole.
    """


@dead_letters.command(
    "list",
    short_help="List dead letters, the latest first.",
    examples=(
        "polyglot dead-letters list",
        "polyglot dead-letters list --reason overflow --limit 10",
        "polyglot --stores-of .data dead-letters list",
        "polyglot dead-letters list --json | jq '.groups'",
    ),
)
@_filters
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=50,
    show_default=True,
    help="Maximum number of letters shown.",
)
@click.option(
    "--before", type=click.IntRange(min=0), metavar="ID", help="Only letters with an id below ID."
)
@as_json
def list_(limit: int, before: int | None, *, as_json: bool, **filters: Any) -> None:
    """List dead letters, the latest first, and count them by stage and reason."""
    chosen = _chosen(filters)

    async def look(opened: "Operating") -> tuple[Sequence[DeadLetterRow], LetterCounts]:
        flow = opened.dead_letters
        return await flow.page(chosen, before, limit + 1), await flow.count(chosen)

    rows, counts = over_stores(look)
    shown = rows[:limit]
    next_before = shown[-1].id if len(rows) > limit else None
    if as_json:
        listed = {
            "total": counts.letters,
            "groups": [{**g._asdict(), "stage": g.stage.value} for g in counts.groups],
            "letters": [_fields(row) for row in shown],
            "next_before": next_before,
        }
        click.echo(reports.as_json(listed))
        return
    if not counts.letters:
        click.echo("no dead letters", err=True)
        return
    groups = [
        (f"{g.letters:,}", g.stage.value, _second(g.last_at), _line(g.reason))
        for g in counts.groups
    ]
    click.echo(reports.table(("LETTERS", "STAGE", "LAST", "REASON"), groups))
    if shown:
        click.echo()
        click.echo(reports.table(_HEAD, [_row(row) for row in shown]))
    if next_before is not None:
        click.echo(
            f"{len(shown):,} of {counts.letters:,}; the next ones: --before {next_before}", err=True
        )


@dead_letters.command(
    short_help="Show a dead letter with its payload.",
    examples=(
        "polyglot dead-letters show 17",
        "polyglot dead-letters show 17 --json | jq -r .payload",
    ),
)
@click.argument("letter_id", metavar="ID", type=click.IntRange(0, 2**63 - 1))
@as_json
def show(letter_id: int, *, as_json: bool) -> None:
    """Show a dead letter with its payload: the item of the message, unchanged."""

    async def look(opened: "Operating") -> DeadLetterRow:
        return await opened.dead_letters.get(letter_id)

    row = over_stores(look)
    payload = row.letter.payload
    try:
        text, encoded = payload.decode(), None
    except UnicodeDecodeError:
        text, encoded = None, base64.b64encode(payload).decode()
    if as_json:
        whole = {**_fields(row), "payload": text, "payload_base64": encoded}
        click.echo(reports.as_json(whole))
        return
    for name, value in _fields(row).items():
        click.echo(f"{name:<9} {_printable(str(value))}")
    click.echo(f"payload   {_printable(text)}" if text is not None else f"base64    {encoded}")


def _action(command: _Command) -> _Command:
    """Add the arguments and options that replay and discard share."""
    command = as_json(command)
    command = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")(command)
    command = click.option("--all", "everything", is_flag=True, help="All dead letters.")(command)
    command = _filters(command)
    return click.argument(
        "letter_ids", metavar="[ID]...", nargs=-1, type=click.IntRange(0, 2**63 - 1)
    )(command)


@dead_letters.command(
    short_help="Persist or index dead letters again.",
    examples=(
        "polyglot dead-letters replay 17 18",
        "polyglot dead-letters replay --stage persist --since 2026-01-31T12:00:00+01:00",
        "polyglot dead-letters replay --all --yes",
    ),
)
@_action
@click.pass_context
def replay(ctx: click.Context, /, **arguments: Any) -> None:
    """Persist or index dead letters again.

    Select them by ids, by filters (all must match), or by --all. A letter that fails again is kept
    with one more attempt and its new reason, and the exit code is 1. Replaying again is harmless.
    """
    ctx.exit(_act("replay", **arguments))


@dead_letters.command(
    short_help="Delete dead letters for good.",
    examples=(
        "polyglot dead-letters discard 17",
        'polyglot dead-letters discard --reason "another order" --yes',
        "polyglot dead-letters discard --stage decode --until 2026-01-31",
    ),
)
@_action
@click.pass_context
def discard(ctx: click.Context, /, **arguments: Any) -> None:
    """Delete dead letters for good. Their orders become unknown unless they were persisted.

    Select them by ids, by filters (all must match), or by --all. A letter whose order is still
    dirty in the cache is kept, and the exit code is 1.
    """
    ctx.exit(_act("discard", **arguments))


def _act(
    action: "Action",
    *,
    letter_ids: Sequence[int],
    everything: bool,
    yes: bool,
    as_json: bool,
    **filters: Any,
) -> int:
    chosen = _chosen(filters)
    ways = [bool(letter_ids), chosen != LetterFilter(), everything]
    if sum(ways) != 1:
        raise click.UsageError(
            "Select letters in exactly one way: by ids, by filters, or by --all."
        )
    asks = not yes and _is_asked()
    tally = _Tally()

    async def act(opened: "Operating") -> None:
        flow = opened.dead_letters
        if letter_ids:
            if asks:
                _confirm(action, len(letter_ids))
            await _act_on_ids(flow, action, letter_ids, tally)
            return
        total = (await flow.count(chosen)).letters
        if total and asks:
            _confirm(action, total)
        if total:
            await _act_on_all(flow, action, chosen, total, tally)

    done = "what was done stays done, run it again to go on"
    try:
        over_stores(act, stopped=done)
    except PolyglotError as error:
        if tally.is_begun(error):
            click.echo(f"cut short; {done}", err=True)
            click.echo(tally.as_json() if as_json else tally.report())
        raise
    click.echo(tally.as_json() if as_json else tally.report())
    return 0 if tally.is_complete else 1


async def _act_on_ids(
    flow: "DeadLetterFlow", action: "Action", letter_ids: Sequence[int], tally: "_Tally"
) -> None:
    done: set[int] = set()
    for letter_id in letter_ids:
        if letter_id in done:
            continue  # it went with its bulk
        try:
            handled = await flow.act(action, letter_id, _operator())
        except NotFoundError:
            tally.missing.append(letter_id)
            continue
        done.update(one.letter_id for one in handled)
        tally.add(handled)


async def _act_on_all(
    flow: "DeadLetterFlow", action: "Action", chosen: LetterFilter, total: int, tally: "_Tally"
) -> None:
    before: int | None = None
    with progress(total) as shown:
        while True:
            part = await flow.act_on_slice(action, chosen, before, _operator())
            tally.add(part.handled)
            shown.advance(len(part.handled))
            before = part.before
            if before is None:
                return


class _Tally:
    """What became of the letters."""

    def __init__(self) -> None:
        self.missing: list[int] = []
        self._counts: Counter[str] = Counter()
        self._kept: list[Handled] = []

    def is_begun(self, error: PolyglotError) -> bool:
        """Whether anything was handled before an error; what it says to be done is counted."""
        from polyglot_persistence.flows.behind.dead_letters import CutShortError

        if isinstance(error, CutShortError):
            self.add(error.handled)
        return bool(self._counts or self.missing)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left of what was named."""
        return not self.missing and not self._counts["kept"]

    def add(self, handled: "Sequence[Handled]") -> None:
        """Count letters; list a bounded number of those that were kept."""
        for one in handled:
            self._counts[one.outcome.value] += 1
            if one.outcome.value == "kept" and len(self._kept) < KEPT_LISTED_MAX:
                self._kept.append(one)

    def as_json(self) -> str:
        """Return everything, for programs."""
        counts = {name: self._counts[name] for name in _OUTCOMES}
        kept = [
            {"id": one.letter_id, "order_id": one.order_id, "detail": one.detail}
            for one in self._kept
        ]
        return reports.as_json({**counts, "missing": self.missing, "kept_letters": kept})

    def report(self) -> str:
        """Return the counts, and what was kept and why."""
        counts = [f"{self._counts[n]:,} {n}" for n in _OUTCOMES if self._counts[n]]
        lines = [", ".join(counts) or "nothing to do"]
        if self.missing:
            lines.append(f"not there (any more): {', '.join(map(str, self.missing))}")
        if self._kept:
            rows = [
                (str(one.letter_id), str(one.order_id or "-"), _line(one.detail))
                for one in self._kept[:KEPT_SHOWN_MAX]
            ]
            lines.append(reports.table(("KEPT", "ORDER", "WHY"), rows))
        if self._counts["kept"] > KEPT_SHOWN_MAX:
            lines.append(f"and {self._counts['kept'] - KEPT_SHOWN_MAX:,} more")
        return "\n".join(lines)


_OUTCOMES = ("persisted", "reindexed", "discarded", "kept")
_HEAD = ("ID", "STAGE", "ATTEMPTS", "LAST", "ORDER", "REASON")


def _operator() -> Any:
    """Return the operator for the log: the user who runs this command."""
    import getpass

    from polyglot_persistence.flows.behind.dead_letters import Operator

    try:
        return Operator("command", getpass.getuser())
    except (OSError, KeyError):  # a container's user without a name
        return Operator("command", f"uid {os.getuid()}")


def _is_asked() -> bool:
    """Whether a person can be asked; a script is not asked."""
    return sys.stdin.isatty()


def _confirm(action: str, letters: int) -> None:
    what = "one dead letter" if letters == 1 else f"{letters:,} dead letters"
    click.confirm(f"{action.capitalize()} {what}?", abort=True, err=True)


def _fields(row: DeadLetterRow) -> dict[str, Any]:
    letter = row.letter
    return {
        "id": row.id,
        "order_id": letter.order_id,
        "unit_id": letter.unit_id,
        "stage": letter.stage.value,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "first_at": row.first_at.isoformat(),
        "last_at": row.last_at.isoformat(),
    }


def _row(row: DeadLetterRow) -> Sequence[str]:
    letter = row.letter
    return (
        str(row.id),
        letter.stage.value,
        str(letter.attempts),
        _second(row.last_at),
        str(letter.order_id or "-"),
        _line(letter.reason),
    )


def _second(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _line(text: str) -> str:
    cut = text if len(text) <= REASON_SHOWN_MAX else f"{text[: REASON_SHOWN_MAX - 1]}…"
    return _printable(cut)


def _printable(text: str) -> str:
    """Return the text without what would move a terminal's cursor, or worse."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
