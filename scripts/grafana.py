"""Write Grafana's dashboard, `deploy/grafana/dashboards/polyglot.json`, from the table below.

python scripts/grafana.py

A dashboard in JSON is a thousand lines in which nobody sees what is asked; here a panel is its
title, its unit and its questions to Prometheus. Gauges that all processes share are asked by `max`,
what each process counts by `sum`.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "polyglot.json"
UID = "polyglot-persistence"
DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
COLUMNS = 24
PANELS_A_LINE = 3
PANEL_HEIGHT = 8
STAT_HEIGHT = 4


class Panel(NamedTuple):
    """A title, a unit of Grafana's, and expressions with their legends."""

    title: str
    unit: str
    questions: tuple[tuple[str, str], ...]
    about: str = ""


def _rate(metric: str, by: str = "") -> str:
    grouped = f" by ({by}) " if by else ""
    return f"sum{grouped}(rate({metric}[$__rate_interval]))"


def _increase(metric: str, by: str) -> str:
    return f"sum by ({by}) (increase({metric}[$__rate_interval]))"


def _quantile(quantile: float, metric: str, by: str = "", where: str = "") -> str:
    groups = f"le, {by}" if by else "le"
    series = f"{metric}_bucket{where}"
    return f"histogram_quantile({quantile:g}, {_rate(series, groups)})"


def _quantiles(metric: str, where: str = "") -> tuple[tuple[str, str], ...]:
    return tuple((_quantile(q / 100, metric, where=where), f"p{q}") for q in (50, 95, 99))


def _mean(metric: str) -> tuple[tuple[str, str], ...]:
    return ((f"{_rate(f'{metric}_sum')} / {_rate(f'{metric}_count')}", "mean"),)


_CONSISTENT = 'polyglot_orders_consistent_total{within!="inf"}'
_AT_ALL = 'polyglot_orders_consistent_total{within="inf"}'
_HTTP = "http_server_request_duration_seconds"
_PLACE = '{http_route="/api/orders",http_request_method="POST"}'
_READ = '{http_route="/api/orders/{id}"}'

OVERVIEW = (
    Panel("Accepted", "ops", ((_rate("polyglot_orders_accepted_total"), ""),)),
    Panel("Placing an order, p99", "s", ((_quantile(0.99, _HTTP, where=_PLACE), ""),)),
    Panel("Not persisted", "short", (("max(polyglot_dirty_orders)", ""),)),
    Panel("Oldest of them", "s", (("max(polyglot_dirty_oldest_age_seconds)", ""),)),
    Panel("Stores that answer", "short", (("sum(min by (store) (polyglot_store_up))", ""),)),
    Panel("Dead letters", "short", (("max(polyglot_dead_letters_waiting)", ""),)),
)

ROWS: dict[str, tuple[Panel, ...]] = {
    "Intake": (
        Panel(
            "Orders",
            "ops",
            (
                (_rate("polyglot_orders_accepted_total"), "accepted"),
                (_rate("polyglot_orders_refused_total", "reason"), "refused: {{reason}}"),
                (
                    _rate("polyglot_orders_accepted_one_copy_total", "missing"),
                    "one copy, no {{missing}}",
                ),
            ),
        ),
        Panel("Placing an order", "s", _quantiles(_HTTP, _PLACE)),
        Panel(
            "Answers",
            "reqps",
            (
                (
                    _rate(f"{_HTTP}_count", "http_response_status_code"),
                    "{{http_response_status_code}}",
                ),
            ),
        ),
        Panel("One group commit", "s", _quantiles("polyglot_commit_duration_seconds")),
        Panel("Orders in one commit", "short", _mean("polyglot_commit_orders")),
        Panel("Waiting for a commit", "short", (("sum(polyglot_waiting_orders)", "orders"),)),
    ),
    "Reading": (
        Panel("Found in", "ops", ((_rate("polyglot_reads_total", "source"), "{{source}}"),)),
        Panel("Reading an order", "s", _quantiles(_HTTP, _READ)),
        Panel("Cache cold", "short", (("max(polyglot_cache_cold)", "cold"),)),
    ),
    "From accepted to searchable": (
        Panel(
            "Orders",
            "ops",
            (
                (_rate("polyglot_orders_persisted_total", "source"), "persisted: {{source}}"),
                (_rate("polyglot_orders_indexed_total"), "indexed"),
            ),
        ),
        Panel("Accepted to persisted", "s", _quantiles("polyglot_persist_lag_seconds")),
        Panel("Accepted to searchable", "s", _quantiles("polyglot_index_lag_seconds")),
        Panel("Wait in the queue", "s", _quantiles("polyglot_queue_wait_seconds")),
        Panel("One persist transaction", "s", _quantiles("polyglot_persist_duration_seconds")),
        Panel("One index batch", "s", _quantiles("polyglot_index_duration_seconds")),
        Panel("Orders in one transaction", "short", _mean("polyglot_persist_orders")),
    ),
    "Backlog": (
        Panel(
            "Not persisted",
            "short",
            (
                ("max(polyglot_dirty_orders)", "orders"),
                ("max(polyglot_dirty_orders_limit)", "watermark"),
            ),
        ),
        Panel(
            "Oldest",
            "s",
            (
                ("max(polyglot_dirty_oldest_age_seconds)", "not persisted"),
                ("max(polyglot_outbox_oldest_age_seconds)", "not searchable"),
            ),
        ),
        Panel("Messages in the queue", "short", (("max(polyglot_queue_messages)", "ready"),)),
        Panel("Not searchable", "short", (("max(polyglot_outbox_orders)", "orders"),)),
        Panel(
            "Nodes of the queue",
            "short",
            (
                ('max(polyglot_queue_members{kind="online"})', "online"),
                ('max(polyglot_queue_members{kind="wanted"})', "wanted"),
            ),
        ),
    ),
    "Stores": (
        Panel("Answer", "short", (("min by (store) (polyglot_store_up)", "{{store}}"),)),
        Panel(
            "Calls, p99",
            "s",
            (
                (
                    _quantile(0.99, "polyglot_store_call_duration_seconds", "store, operation"),
                    "{{store}} {{operation}}",
                ),
            ),
        ),
        Panel(
            "Failed calls",
            "ops",
            ((_rate("polyglot_store_errors_total", "store, outcome"), "{{store}}: {{outcome}}"),),
        ),
        Panel(
            "Statements of PostgreSQL, p99",
            "s",
            ((_quantile(0.99, "db_query_duration_seconds", "operation"), "{{operation}}"),),
        ),
        Panel(
            "Faults of API_KEYS_FILE", "short", (("max(polyglot_api_keys_file_faults)", "entries"),)
        ),
        Panel("Retries", "ops", ((_rate("polyglot_retries_total", "of"), "{{of}}"),)),
        Panel(
            "Since a loop last succeeded",
            "s",
            (
                (
                    "time() - max by (loop) (polyglot_loop_last_success_timestamp_seconds)",
                    "{{loop}}",
                ),
            ),
        ),
    ),
    "Dead letters, search, sales": (
        Panel("Dead letters", "short", (("max(polyglot_dead_letters_waiting)", "waiting"),)),
        Panel(
            "Written and handled",
            "ops",
            (
                (_rate("polyglot_dead_letters_total", "stage"), "written: {{stage}}"),
                (_rate("polyglot_dead_letters_handled_total", "outcome"), "{{outcome}}"),
            ),
        ),
        Panel(
            "Search requests",
            "s",
            _quantiles(_HTTP, '{http_route="/api/search"}'),
        ),
        Panel("Age of daily_sales_mv", "s", (("max(polyglot_sales_view_age_seconds)", "age"),)),
    ),
    "Audit": (
        Panel(
            "Differences between stores",
            "short",
            (
                (_increase("polyglot_audit_drift_found_total", "kind"), "found: {{kind}}"),
                (_increase("polyglot_audit_drift_repaired_total", "kind"), "repaired: {{kind}}"),
            ),
        ),
        Panel(
            "Failovers of PostgreSQL",
            "short",
            ((_increase("polyglot_record_changes_total", "job"), "failovers and restores"),),
        ),
        Panel("Orders compared", "ops", ((_rate("polyglot_audit_orders_total"), "orders"),)),
        Panel(
            "Time of the last whole audit", "s", (("max(polyglot_audit_duration_seconds)", "time"),)
        ),
        Panel(
            "In every store within",
            "percentunit",
            (
                (
                    f"{_rate(_CONSISTENT, 'within')} / on () group_left () {_rate(_AT_ALL)}",
                    "{{within}} s",
                ),
            ),
        ),
        Panel(
            "Nines of the last day",
            "short",
            (("max by (within) (polyglot_freshness_nines)", "within {{within}} s"),),
            "2 is 99 % of the orders, 3 is 99.9 %.",
        ),
    ),
    "Objectives": (
        Panel(
            "Requests for orders that fail",
            "percentunit",
            (
                ("polyglot:http_errors:ratio_rate5m", "5 minutes"),
                ("polyglot:http_errors:ratio_rate1h", "1 hour"),
                ("polyglot:http_errors:ratio_rate3d", "3 days"),
            ),
            "Objective: 0.1 % in 30 days.",
        ),
        Panel(
            "Orders persisted after more than 5 s",
            "percentunit",
            (
                ("polyglot:persisted_late:ratio_rate5m", "5 minutes"),
                ("polyglot:persisted_late:ratio_rate1h", "1 hour"),
                ("polyglot:persisted_late:ratio_rate3d", "3 days"),
            ),
            "Objective: 1 % in 30 days.",
        ),
        Panel(
            "Alerts",
            "short",
            (('sum by (alertname) (ALERTS{alertstate="firing"})', "{{alertname}}"),),
        ),
    ),
    "Processes": (
        Panel(
            "CPU",
            "percentunit",
            (
                (
                    "sum by (job, instance) (rate(process_cpu_seconds_total[$__rate_interval]))",
                    "{{job}} {{instance}}",
                ),
            ),
        ),
        Panel("Memory", "bytes", (("process_resident_memory_bytes", "{{job}} {{instance}}"),)),
        Panel("Open descriptors", "short", (("process_open_fds", "{{job}} {{instance}}"),)),
        Panel(
            "Running since",
            "s",
            (("time() - process_start_time_seconds", "{{job}} {{instance}}"),),
        ),
        Panel(
            "Versions",
            "short",
            (("count by (job, version) (polyglot_build_info)", "{{job}} {{version}}"),),
        ),
    ),
}


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    width = COLUMNS // len(OVERVIEW)
    for column, panel in enumerate(OVERVIEW):
        place = {"x": column * width, "y": 0, "w": width, "h": STAT_HEIGHT}
        panels.append(_panel(panel, "stat", len(panels), place))
    y = STAT_HEIGHT
    for title, row in ROWS.items():
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        panels.append(
            {"type": "row", "title": title, "id": len(panels) + 1, "gridPos": place, "panels": []}
        )
        y += 1
        width = COLUMNS // PANELS_A_LINE
        for number, panel in enumerate(row):
            line, column = divmod(number, PANELS_A_LINE)
            place = {
                "x": column * width,
                "y": y + line * PANEL_HEIGHT,
                "w": width,
                "h": PANEL_HEIGHT,
            }
            panels.append(_panel(panel, "timeseries", len(panels), place))
        y += -(-len(row) // PANELS_A_LINE) * PANEL_HEIGHT
    return {
        "uid": UID,
        "title": "Polyglot persistence",
        "tags": ["polyglot-persistence"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "timezone": "browser",
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "10s",
        "panels": panels,
    }


def _panel(panel: Panel, kind: str, number: int, place: dict[str, int]) -> dict[str, Any]:
    return {
        "type": kind,
        "title": panel.title,
        "description": panel.about,
        "id": number + 1,
        "gridPos": place,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + n),
                "datasource": DATASOURCE,
                "expr": expr,
                "legendFormat": legend,
            }
            for n, (expr, legend) in enumerate(panel.questions)
        ],
    }


def text() -> str:
    """Return what the file holds."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    DASHBOARD.write_text(text())
