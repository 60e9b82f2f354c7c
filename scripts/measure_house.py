"""Prints how large the program is: lines of each folder, its modules, and its imports of others.

    python3 scripts/measure_house.py [SOURCES]

SOURCES is the package's directory, of this checkout or of another one. An arrow is a pair of
modules of which one imports the other; `TYPE_CHECKING` imports count as well.
"""

import argparse
import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent / "src" / "polyglot_persistence"
ROOMS = ("flows", "api", "adapters", "domain")
"""Folders whose own folders are rooms that a reader looks for."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("sources", nargs="?", type=Path, default=HERE)
    sources = parser.parse_args().sources.resolve()
    modules = {_dotted(path, sources): path for path in sorted(sources.rglob("*.py"))}
    rooms = {name: _room(path, sources) for name, path in modules.items()}
    lines, count = Counter[str](), Counter[str]()
    for name, path in modules.items():
        lines[rooms[name]] += len(path.read_text(encoding="utf-8").splitlines())
        count[rooms[name]] += path.name != "__init__.py"
    within, across = Counter[str](), Counter[tuple[str, str]]()
    for name, other in _arrows(modules, sources.name):
        if rooms[name] == rooms[other]:
            within[rooms[name]] += 1
        else:
            across[rooms[name], rooms[other]] += 1
    print(f"{'room':<24}{'lines':>7}{'modules':>9}{'arrows within':>15}{'rooms imported':>16}")
    for room in sorted(lines):
        outward = sum(one == room for one, _ in across)
        print(f"{room:<24}{lines[room]:>7}{count[room]:>9}{within[room]:>15}{outward:>16}")
    print(
        f"{'all':<24}{lines.total():>7}{count.total():>9}{within.total():>15}"
        f"{len(across):>16}, {across.total()} arrows between rooms"
    )


def _dotted(path: Path, sources: Path) -> str:
    parts = path.relative_to(sources).with_suffix("").parts
    return ".".join((sources.name, *(parts[:-1] if parts[-1] == "__init__" else parts)))


def _room(path: Path, sources: Path) -> str:
    """Return the folder that a module is in; of some, the folder within."""
    folders = path.relative_to(sources).parts[:-1]
    if not folders:
        return "(top)"
    return "/".join(folders[:2] if folders[0] in ROOMS else folders[:1])


def _arrows(modules: Mapping[str, Path], package: str) -> Iterator[tuple[str, str]]:
    for name, path in modules.items():
        imported = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package):
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    imported.add(whole if whole in modules else str(node.module))
        for other in sorted(imported - {name}):
            yield name, other


if __name__ == "__main__":
    main()
