"""Write the settings into `docs/ops.md` and `docker-compose.yml`, between two markers each.

python scripts/document_settings.py
"""

from pathlib import Path

from polyglot_persistence.config import load

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


def _between(text: str, begin: str, written: str, end: str) -> str:
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}{written}{end}{tail}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
    COMPOSE.write_text(with_names(COMPOSE.read_text()))
