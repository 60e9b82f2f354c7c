"""Write the settings where they are listed: docs/ops.md, docker-compose.yml, the Helm chart.

python scripts/document_settings.py
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polyglot_persistence.config import Settings, load
from polyglot_persistence.config.fields import Spec, values_of

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "ops.md"
BEGIN = "<!-- settings: written by `make docs` -->"
END = "<!-- end of settings -->"

COMPOSE = ROOT / "docker-compose.yml"
COMPOSE_BEGIN = "  # settings: written by `make docs`\n"
COMPOSE_END = "  # end of settings\n"
SET_BY_COMPOSE = (
    *("POSTGRES_DSN", "REDIS_ADDR", "RABBITMQ_URL", "ELASTICSEARCH_URL"),
    *("API_HOST", "API_PORT", "WORKER_PORT"),
)
"""What the compose file gives values to; every other setting is only passed on."""

CHART_SCHEMA = ROOT / "deploy" / "helm" / "values.schema.json"
SERVED_IN_THE_CHART = ("API_PROCESS_PORT", "WORKER_PORT")
"""Ports that may be 0, which means none; the chart has a probe or a scrape for each."""
READ_BY_OPENTELEMETRY = (
    *("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS"),
    *("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"),
)
"""Standard variables, which the SDK reads itself."""
_BOUNDS = re.compile(r"(\S+) to (\S+)")


def settings_table() -> str:
    """Return every setting as a row of Markdown."""
    rows = [
        f"| `{setting.name}` | `{setting.default}` | {_cell(setting.allowed)} "
        f"| {_cell(setting.doc)} |"
        for setting in load({}).describe()
    ]
    return "\n".join(["| Variable | Default | May be | Meaning |", "|---|---|---|---|", *rows])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def with_table(page: str) -> str:
    """Return the page with the table as it is now."""
    return _between(page, BEGIN, f"\n{settings_table()}\n", END)


def with_names(compose: str) -> str:
    """Return the compose file with the names of the settings as they are now."""
    names = [setting.name for setting in load({}).describe() if setting.name not in SET_BY_COMPOSE]
    return _between(compose, COMPOSE_BEGIN, "".join(f"  {name}:\n" for name in names), COMPOSE_END)


def with_values(schema: str) -> str:
    """Return the schema of the chart's values with the settings as they are now."""
    described = json.loads(schema)
    described["$defs"]["settings"]["properties"] = dict(_values())
    return f"{json.dumps(described, indent=2)}\n"


def _values() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each variable of the chart's `settings`, with what it may be."""
    specs: dict[str, Spec] = {}
    values_of(Settings, specs.__setitem__)
    for name, spec in specs.items():
        yield name, {"description": spec.doc, **_value_of(name, spec)}
        if spec.masked:
            yield f"{name}_FILE", {"description": f"File with {name}.", "type": "string"}
    for name in READ_BY_OPENTELEMETRY:
        yield name, {"description": "Of OpenTelemetry's SDK.", "type": "string"}


def _value_of(name: str, spec: Spec) -> dict[str, Any]:
    if bounds := _BOUNDS.fullmatch(spec.allowed):
        low, high = (float(bound) for bound in bounds.groups())
        low = max(low, 1) if name in SERVED_IN_THE_CHART else low
        return {"type": "number", "minimum": low, "maximum": high}
    if " | " in spec.allowed:
        return {"enum": spec.allowed.split(" | ")}
    return {"type": "string"}


def _between(text: str, begin: str, written: str, end: str) -> str:
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}{written}{end}{tail}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
    COMPOSE.write_text(with_names(COMPOSE.read_text()))
    CHART_SCHEMA.write_text(with_values(CHART_SCHEMA.read_text()))
