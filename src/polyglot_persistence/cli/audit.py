"""`polyglot audit` and `polyglot sales`: compare the stores and repair differences.

They work directly on the stores in the settings; no API and no worker has to run.
"""

from typing import TYPE_CHECKING

import click

from polyglot_persistence.cli import reports
from polyglot_persistence.cli.command import Command, Commands, as_json, over_stores
from polyglot_persistence.cli.progress import progress
from polyglot_persistence.domain.drift import Drift

if TYPE_CHECKING:
    from polyglot_persistence.bootstrap.operating import Operating
    from polyglot_persistence.flows.watch.audit import Report
    from polyglot_persistence.ports.audit import SalesTotals


@click.command(
    cls=Command,
    short_help="Compare all stores and repair differences.",
    examples=(
        "polyglot audit",
        "polyglot --stores-of .data audit",
        "polyglot audit --repair",
        "polyglot audit --json | jq '.freshness'",
    ),
)
@click.option(
    "--repair",
    is_flag=True,
    help="Correct search, sales and cache from PostgreSQL. After a restore of PostgreSQL, also "
    "persist the orders that only the cache still holds, and remove documents without an order.",
)
@as_json
@click.pass_context
def audit(ctx: click.Context, *, repair: bool, as_json: bool) -> None:
    """Compare PostgreSQL, search, sales and cache while orders come in.

    Orders under way are not drift. Exits with 1 if a difference was not repaired or a store could
    not be compared.
    """
    from polyglot_persistence.flows.watch.audit import EVERYTHING

    async def run(opened: "Operating") -> "Report":
        await opened.stores.migrate()

        async def work_off() -> int:
            return await opened.index.work_off_outbox(0.0, WORK_OFF_ORDERS)

        with progress(None) as shown:  # entries, documents and rows: how many, the end shows

            async def pace(orders: int) -> bool:
                shown.advance(orders)
                return True

            if not repair:
                return await opened.audit.run(pace)
            return await opened.audit.run(pace, repaired=EVERYTHING, work_off=work_off)

    report = over_stores(run, stopped="repairs so far are kept; run it again for a complete audit")
    click.echo(_json(report) if as_json else _text(report))
    ctx.exit(0 if report.is_clean else 1)


WORK_OFF_ORDERS = 5_000


@click.group(
    cls=Commands,
    short_help="Rebuild the sales from the orders.",
    examples=("polyglot sales rebuild",),
)
def sales() -> None:
    """Rebuild the sales rollups from the orders."""


@sales.command(
    short_help="Rebuild the sales day by day while orders come in.",
    examples=("polyglot sales rebuild", "polyglot --stores-of .data sales rebuild --json"),
)
@as_json
def rebuild(*, as_json: bool) -> None:
    """Compare every day's sales with the sums over its orders and correct differences.

    Orders may come in meanwhile, and no correct answer becomes wrong in between. The sums confirm
    each correction before it is committed. If interrupted, run it again within an hour to resume
    after the last finished day.
    """
    from polyglot_persistence.flows.watch.audit_tally import Tally

    tally = Tally()

    async def run(opened: "Operating") -> "SalesTotals":
        await opened.stores.migrate()
        with progress(await opened.stores.audit.record.count_orders()) as shown:
            return await opened.sales.rebuild(tally, shown.advance)

    totals = over_stores(run, stopped="corrections so far are kept; run it again to resume")
    hours = tally.repaired[Drift.WRONG_QUARTER_HOUR]
    products = tally.repaired[Drift.WRONG_PRODUCT_DAY]
    if as_json:
        done = {"orders": totals.orders, "revenue": totals.revenue}
        repaired = {"quarter_hours": hours, "product_days": products}
        click.echo(reports.as_json({**done, "repaired": repaired}))
        return
    click.echo(
        f"{totals.orders:,} orders add up to {totals.revenue:,.2f} in both rollups; "
        f"{hours:,} quarter hours and {products:,} product days corrected"
    )


def _json(report: "Report") -> str:
    from polyglot_persistence.flows.behind.freshness import nines, shares

    counts, tally = report.freshness, report.tally
    freshness = counts and {
        "orders": counts.orders,
        "within": {
            f"{bound}s": {"share": share, "nines": None if share >= 1 else nines(share)}
            for bound, share in shares(counts).items()
        },
    }
    return reports.as_json({
        "orders": report.orders,
        "entries": report.entries,
        "seconds": round(report.seconds, 3),
        "drift": {
            drift.value: {"found": tally.found[drift], "repaired": tally.repaired[drift]}
            for drift in Drift
        },
        "not_compared": report.not_compared,
        "freshness": freshness,
    })  # fmt: skip


def _text(report: "Report") -> str:
    from polyglot_persistence.flows.behind.freshness import nines, shares

    tally = report.tally
    rows = [
        (drift.value.replace("_", " "), f"{tally.found[drift]:,}", f"{tally.repaired[drift]:,}")
        for drift in Drift
        if tally.found[drift]
    ]
    lines = [reports.table(("DRIFT", "FOUND", "REPAIRED"), rows)] if rows else ["no drift"]
    lines += [f"not compared: {part}: {why}" for part, why in report.not_compared.items()]
    lines.append(
        f"{report.orders:,} orders and {report.entries:,} cache entries compared in "
        f"{report.seconds:,.1f} s"
    )
    if report.freshness and report.freshness.orders:
        within = [
            f"{share:.4%} within {bound} s" + ("" if share >= 1 else f" ({nines(share):.1f} nines)")
            for bound, share in shares(report.freshness).items()
        ]
        lines.append(
            f"of the last day's {report.freshness.orders:,} orders in every store: "
            + ", ".join(within)
        )
    return "\n".join(lines)
