"""Write the table of settings into `docs/ops.md`, between its two markers.

python scripts/document_settings.py
"""

from pathlib import Path

from polyglot_persistence.config import load

PAGE = Path(__file__).parent.parent / "docs" / "ops.md"
BEGIN = "<!-- settings: written by `make docs` -->"
END = "<!-- end of settings -->"


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
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{settings_table()}\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
