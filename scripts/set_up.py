"""Make the virtual environment hold exactly what `requirements/` pins, and nothing be done twice.

    python3 scripts/set_up.py VENV PROFILE

A profile is a file of `requirements/`. What was installed for it is remembered in the environment
as a digest of everything that went in; while that is the same this takes a few milliseconds, needs
no network and writes nothing. Made with the standard library alone: it runs before anything is
installed.

Invariant: the digest is written last, so that a set-up which was interrupted is done again.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = "project"
STANDALONE = {"lock"}
"""Profiles that do not hold the project itself."""


def main(venv: Path, profile: str) -> int:
    """Set the environment up for a profile; return the exit code."""
    parts = [profile] if profile in STANDALONE else [profile, PROJECT]
    if all(up_to_date(venv, part) for part in parts):
        return 0
    try:
        venv.mkdir(parents=True, exist_ok=True)
        with (venv / ".set-up-lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two at once in one checkout: the second waits
            set_up(venv, [part for part in parts if not up_to_date(venv, part)])
    except PermissionError as error:
        say(
            f"cannot write {error.filename}: {error.strerror}. "
            "Name another place: make ... VENV=/some/directory"
        )
        return 2
    except subprocess.CalledProcessError as error:
        say(f"failed: {' '.join(map(str, error.cmd[:6]))} ...")
        return 1
    return 0


def set_up(venv: Path, parts: list[str]) -> None:
    """Make the environment if need be and install the parts."""
    if not parts:
        return
    say(f"setting up {venv} ({', '.join(parts)}); the first time takes a minute")
    started = time.monotonic()
    python = venv / "bin" / "python"
    if not usable(python):
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)  # noqa: S603
    for part in parts:
        if part == PROJECT:
            # With the pinned build backend, and without pip fetching anything itself.
            pip(python, "--require-hashes", "-r", str(ROOT / "requirements" / "build.txt"))
            pip(python, "--no-index", "--no-build-isolation", "--editable", str(ROOT))
        else:
            pip(python, "--require-hashes", "-r", str(ROOT / "requirements" / f"{part}.txt"))
        stamp(venv, part).write_text(digest(venv, part))
    say(f"done after {time.monotonic() - started:.0f} s")


def pip(python: Path, *arguments: str) -> None:
    """Install; everything is pinned, so pip resolves nothing."""
    subprocess.run(  # noqa: S603
        [python, "-m", "pip", "install", "--quiet", "--no-deps", *arguments],
        check=True,
        # Of the user's configuration, only what says where packages come from may have a say.
        env=os.environ | {"PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )


def usable(python: Path) -> bool:
    """Whether there is an environment that was made here, has pip, and whose Python is there."""
    if not python.exists():
        return False
    asked = subprocess.run(  # noqa: S603
        [python, "-m", "pip", "--version"], check=False, capture_output=True
    )
    return asked.returncode == 0


def stamp(venv: Path, part: str) -> Path:
    """Return where the digest of what was installed is kept."""
    return venv / f".installed-{part}"


def up_to_date(venv: Path, part: str) -> bool:
    """Whether the part is installed as it is now wanted."""
    try:
        installed = stamp(venv, part).read_text() == digest(venv, part)
    except OSError:
        return False
    return installed and (venv / "bin" / "python").exists()


def digest(venv: Path, part: str) -> str:
    """Return the digest of all that decides what is installed, and of where."""
    if part == PROJECT:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        what = repr((project["project"], project["build-system"])) + pins("build")
    else:
        what = pins(part)
    made = (venv / "pyvenv.cfg").read_text()
    # Its scripts hold the environment's path, so that a copy of it is set up anew.
    where = f"{venv.resolve()} {ROOT}"
    return hashlib.sha256(f"{where}\0{made}\0{what}".encode()).hexdigest()


def pins(profile: str) -> str:
    """Return what is pinned for a profile."""
    return (ROOT / "requirements" / f"{profile}.txt").read_text()


def say(text: str) -> None:
    """Tell the user; stdout belongs to the command that follows."""
    sys.stderr.write(f"set-up: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
