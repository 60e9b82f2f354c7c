"""How results are written: aligned plain text that can be cut and grepped, or JSON."""

import json
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from polyglot_persistence.bootstrap import Finding
    from polyglot_persistence.config import Described

_COLOURS = {"PASS": "green", "WARN": "yellow", "FAIL": "red"}


def as_json(value: object) -> str:
    """Return the value as indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return aligned columns, one row a line; never wrapped, so that a pipe can take it."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
    return "\n".join([click.style(lines[0], bold=True), *lines[1:]])


def explained(settings: "Sequence[Described]") -> str:
    """Return each setting with its bounds, default and meaning."""
    blocks = []
    for setting in settings:
        head = click.style(f"{setting.name}={setting.value}", bold=True)
        meaning = textwrap.indent(textwrap.fill(setting.doc, 92), "    ")
        blocks.append(
            f"{head}  ({setting.source})\n{meaning}\n"
            f"    {setting.allowed}; default {setting.default}"
        )
    return "\n".join(blocks)


def findings(found: "Sequence[Finding]") -> str:
    """Return a line for each finding, and under it what to do."""
    width = max((len(finding.store) for finding in found), default=0)
    lines = []
    for finding in found:
        level = click.style(finding.level, fg=_COLOURS[finding.level])
        lines.append(f"{level}  {finding.store.ljust(width)}  {finding.detail}")
        if finding.fix:
            lines.append(f"{' ' * (width + 8)}fix: {finding.fix}")
    return "\n".join(lines)
