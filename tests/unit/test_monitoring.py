"""Alert rules, runbook and dashboard agree with the metrics and with each other.

What the rules decide is asked of Prometheus's own `promtool` (Debian: package `prometheus`).
"""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from prometheus_client.exposition import generate_latest

from polyglot_persistence.api.web.measuring import observe_request
from polyglot_persistence.telemetry import REGISTRY
from scripts import grafana
from tests.support.documents import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"
OPERATIONS = (ROOT / "docs" / "ops.md").read_text()
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
PANELS = [panel for panel in grafana.dashboard()["panels"] if panel["type"] != "row"]
EXPRESSIONS = [
    *[rule["expr"] for rule in RULES],
    *[target["expr"] for panel in PANELS for target in panel["targets"]],
]
NEEDS_PROMTOOL = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)"
)

_METRIC = re.compile(r"\b(?:polyglot|http|db|process)_\w+(?=[\[{ )]|$)")
_LABEL = re.compile(r'(\w+)(?:=~|!~|!=|=)"')
_GROUPED = re.compile(r"\bby \(([\w, ]*)\)")
_OF_PROMETHEUS = {"job", "instance", "le", "alertname", "alertstate"}


def series() -> tuple[set[str], set[str]]:
    """Return the names of all series that a process serves, and those of their labels."""
    observe_request("GET", "/health/live", 200, 0.001)  # its labels are there from then on
    names, labels = set[str](), set[str]()
    for metric in REGISTRY.collect():
        suffixes = {
            "counter": ("_total",),
            "histogram": ("_bucket", "_count", "_sum"),
            "info": ("_info",),
        }.get(metric.type, ("",))
        names.update(metric.name + suffix for suffix in suffixes)
        own = getattr(REGISTRY._names_to_collectors.get(metric.name), "_labelnames", ())
        labels.update(own, *(sample.labels for sample in metric.samples))
    return names, labels


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_ask_for_what_there_is(expression: str) -> None:
    """Each metric and label that a rule or panel names is one that a process serves."""
    names, labels = series()
    asked = set(_METRIC.findall(re.sub(r'"[^"]*"|\bby \([^)]*\)', '""', expression)))
    recorded = set(re.findall(r"polyglot:\w+:\w+", expression))
    assert asked or recorded or "up" in expression or "ALERTS" in expression
    assert asked - names == set()
    assert recorded - RECORDED == set()
    grouped = {label for by in _GROUPED.findall(expression) for label in by.split(", ") if label}
    assert {*_LABEL.findall(expression), *grouped} - labels - _OF_PROMETHEUS == set()


def test_shared_gauges_are_not_added_up() -> None:
    """What every process tells of the whole is never summed over the processes."""
    section = OPERATIONS.split("\n## Metrics\n")[1].split("\n## ")[0]
    shared = re.findall(r"^\| `(\w+)` \| [^|]*\| shared \|", section, re.MULTILINE)
    assert len(shared) >= 7
    for expression in EXPRESSIONS:
        for name in shared:
            assert not re.search(rf"(sum|avg|count)[^(]*\({name}\b", expression), expression
            assert name not in expression or f"max({name}" in expression, expression


# --- the runbook -----------------------------------------------------------------------------


def test_every_alert_has_its_entry_in_the_runbook() -> None:
    """And every entry has its alert; the alert leads there, and says how urgent it is."""
    section = OPERATIONS.split("\n## Alerts\n")[1].split("\n## ")[0]
    entries = dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", section, re.MULTILINE | re.DOTALL))
    assert entries.keys() == ALERTS.keys()
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook"] == f"docs/ops.md#{name.lower()}"
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"].keys() == {"summary", "runbook"}
        parts = re.findall(r"\*\*(\w+(?:\s+\w+)?)\*\*", entries[name])
        assert [" ".join(part.split()) for part in parts] == ["Means", "At risk", "Look", "Do"], (
            name
        )


# --- the dashboard ---------------------------------------------------------------------------


def test_the_dashboard_is_current() -> None:
    """The file is what the table in `scripts/grafana.py` makes; else run `make docs`."""
    assert grafana.DASHBOARD.read_text() == grafana.text()


def test_the_dashboard_shows_every_metric() -> None:
    """Whatever is measured can be seen, without a query of one's own."""
    shown = " ".join(EXPRESSIONS)
    hidden = {metric.name for metric in REGISTRY.collect() if metric.name not in shown}
    assert hidden == {"process_virtual_memory_bytes"}


def test_the_dashboard_is_well_formed() -> None:
    """Panels have their own ids, do not overlap, and ask the data source that is provisioned."""
    panels = json.loads(grafana.DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 30
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= grafana.COLUMNS
        taken |= cells
    source = yaml.safe_load(
        (ROOT / "deploy" / "grafana" / "datasources" / "prometheus.yml").read_text()
    )["datasources"][0]
    assert {target["datasource"]["uid"] for p in PANELS for target in p["targets"]} == {
        source["uid"]
    }


# --- what the rules decide -------------------------------------------------------------------


class Case(NamedTuple):
    """Series (in promtool's notation, a sample a step) and when an alert fires, and not yet."""

    series: dict[str, str]
    quiet: str
    fires: str
    step: str = "1m"


_UP = 'up{job="%s",instance="a"}'
_REQUESTS = (
    'http_server_request_duration_seconds_count{http_request_method="POST",'
    'http_route="/api/orders",http_response_status_code="%d"}'
)
CASES = {
    "PolyglotApiGone": Case({_UP % "api": "1x5 0x9"}, "5m", "8m"),
    "PolyglotWorkerGone": Case({_UP % "worker": "1x5 0x2 1x5 stale"}, "12m", "16m"),
    "PolyglotProcessDown": Case({_UP % "api": "1x5 0x9"}, "7m", "9m"),
    "PolyglotRestarts": Case(
        {'process_start_time_seconds{job="worker",instance="a"}': "100x4 200x1 300 400x9"},
        "6m",
        "9m",
    ),
    "PolyglotDescriptorsShort": Case(
        {
            'process_open_fds{job="api",instance="a"}': "100x5 900x9",
            'process_max_fds{job="api",instance="a"}': "1024x20",
        },
        "9m",
        "12m",
    ),
    "PolyglotLoopStuck": Case(
        {
            'polyglot_loop_last_success_timestamp_seconds{loop="sweeper",instance="a"}': (
                "0+60x5 300x20"
            ),
            'polyglot_loop_last_success_timestamp_seconds{loop="sweeper",instance="b"}': "0x25",
        },
        "9m",
        "13m",
    ),
    "PolyglotStoreDown": Case(
        {
            'polyglot_store_up{store="queue",instance="a"}': "1x20",
            'polyglot_store_up{store="queue",instance="b"}': "1x5 0x9",
        },
        "6m",
        "8m",
    ),
    "PolyglotStoreErrors": Case(
        {'polyglot_store_errors_total{store="cache",outcome="unknown"}': "0x9 0+60x20"},
        "12m",
        "25m",
    ),
    "PolyglotQueueMembersMissing": Case(
        {
            'polyglot_queue_members{kind="online",instance="a"}': "3x5 2x9",
            'polyglot_queue_members{kind="wanted",instance="a"}': "3x20",
        },
        "9m",
        "12m",
    ),
    "PolyglotOneCopyOnly": Case(
        {'polyglot_orders_accepted_one_copy_total{missing="cache"}': "0x5 1x9"}, "6m", "9m"
    ),
    "PolyglotCacheCold": Case({"polyglot_cache_cold": "0x3 1x20"}, "10m", "15m"),
    "PolyglotOrdersRefused": Case(
        {
            'polyglot_orders_refused_total{reason="watermark"}': "0x5 0+10x9",
            'polyglot_orders_refused_total{reason="unknown"}': "0+10x20",
        },
        "5m",
        "9m",
    ),
    "PolyglotBacklogNearWatermark": Case(
        {
            'polyglot_dirty_orders{instance="a"}': "60x5 80x9",
            'polyglot_dirty_orders{instance="b"}': "60x5 80x9",
            'polyglot_dirty_orders_limit{instance="a"}': "100x20",
            'polyglot_dirty_orders_limit{instance="b"}': "0x20",
        },
        "5m",
        "8m",
    ),
    "PolyglotDirtyOrdersOld": Case(
        {"polyglot_dirty_oldest_age_seconds": "1x3 60 61x9"}, "5m", "7m"
    ),
    "PolyglotDeadLetters": Case(
        {'polyglot_dead_letters_waiting{instance="a"}': "0x5 1x9"}, "6m", "8m"
    ),
    "PolyglotSearchBehind": Case({"polyglot_outbox_oldest_age_seconds": "10x5 301x9"}, "7m", "9m"),
    "PolyglotSalesViewStale": Case(
        {"polyglot_sales_view_age_seconds": "NaN 3600x5 7201x9"}, "11m", "13m"
    ),
    "PolyglotAuditDrift": Case(
        {'polyglot_audit_drift_found_total{kind="stale_entry"}': "0x9 1x9"}, "9m", "11m"
    ),
    "PolyglotRecordChanged": Case({"polyglot_record_changes_total": "0x9 1x9"}, "9m", "11m"),
    "PolyglotAuditMissing": Case(
        {
            'polyglot_loop_last_success_timestamp_seconds{loop="auditor",instance="a"}': "60x500",
            'polyglot_loop_last_success_timestamp_seconds{loop="auditor",instance="b"}': "0x500",
        },
        "410m",
        "430m",
    ),
    "PolyglotApiKeysFileFaulty": Case(
        {
            'polyglot_api_keys_file_faults{job="api",instance="a"}': "0x5 2x9",
            'polyglot_api_keys_file_faults{job="api",instance="b"}': "0x20",
        },
        "5m",
        "8m",
    ),
    "PolyglotErrorsBurnFast": Case(
        {_REQUESTS % 202: "0+980x120", _REQUESTS % 503: "0x60 0+20x60"}, "59m", "119m"
    ),
    "PolyglotErrorsBurnSlow": Case(
        {_REQUESTS % 202: "0+998x144", _REQUESTS % 503: "0x4 0+2x140"}, "2h", "72h", "30m"
    ),
    "PolyglotPersistLagBurnFast": Case(
        {
            "polyglot_persist_lag_seconds_count": "0+100x120",
            'polyglot_persist_lag_seconds_bucket{le="5.0"}': "0+100x60 6000+80x60",
        },
        "59m",
        "119m",
    ),
    "PolyglotPersistLagBurnSlow": Case(
        {
            "polyglot_persist_lag_seconds_count": "0+100x144",
            'polyglot_persist_lag_seconds_bucket{le="5.0"}': "0+100x4 400+98x140",
        },
        "2h",
        "72h",
        "30m",
    ),
}


def test_every_alert_is_tried() -> None:
    """A rule without a case is one of which nobody knows when it fires."""
    assert CASES.keys() == ALERTS.keys()


FIRES, SILENT = [{"labels": "{}", "value": 1}], list[dict[str, Any]]()


@NEEDS_PROMTOOL
@pytest.mark.parametrize("alert", CASES)
def test_alerts_fire_when_they_should_and_not_before(alert: str, tmp_path: Path) -> None:
    """Prometheus's own evaluation of the rule over made-up series."""
    case = CASES[alert]
    evaluate(alert, case, {case.quiet: SILENT, case.fires: FIRES}, tmp_path)


@NEEDS_PROMTOOL
@pytest.mark.parametrize("alert", ["PolyglotErrorsBurnFast", "PolyglotPersistLagBurnFast"])
def test_one_failure_in_a_quiet_hour_wakes_nobody(alert: str, tmp_path: Path) -> None:
    """A large ratio of very few requests is no burn: the same series with a thousandth of it."""
    case = CASES[alert]
    few = {f"{name}": _thousandth(values) for name, values in case.series.items()}
    evaluate(alert, case._replace(series=few), {case.fires: SILENT}, tmp_path)


def _thousandth(values: str) -> str:
    """Return samples in promtool's notation, each number but the repetitions by a thousand."""
    return re.sub(r"(?<![x\d.])\d+", lambda number: f"{int(number[0]) / 1000:g}", values)


def evaluate(alert: str, case: Case, expected: dict[str, Any], directory: Path) -> None:
    """Have promtool say whether the alert fires at each of the times."""
    firing = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})'
    test = {
        "rule_files": [str(PROMETHEUS / "alerts.yml")],
        "evaluation_interval": case.step,
        "tests": [
            {
                "interval": case.step,
                "input_series": [
                    {"series": name, "values": values} for name, values in case.series.items()
                ],
                "promql_expr_test": [
                    {"expr": firing, "eval_time": at, "exp_samples": samples}
                    for at, samples in expected.items()
                ],
            }
        ],
    }
    file = directory / "test.yml"
    file.write_text(yaml.safe_dump(test))
    ran = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@NEEDS_PROMTOOL
def test_promtool_accepts_the_configuration() -> None:
    """Configuration and rules are what Prometheus reads."""
    config = str(PROMETHEUS / "prometheus.yml")
    ran = subprocess.run(
        ["promtool", "check", "config", config], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@NEEDS_PROMTOOL
def test_promtool_reads_what_a_process_serves() -> None:
    """Prometheus's own linter has no remark."""
    ran = subprocess.run(
        ["promtool", "check", "metrics"],
        input=generate_latest(REGISTRY),
        capture_output=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr.decode()) == (0, "")
