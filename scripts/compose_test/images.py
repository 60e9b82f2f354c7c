"""Stand-ins for the public images, under the names that docker-compose.yml and Dockerfile use."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from real_servers.machine import ServerError, run
from real_servers.server import root_dir

from compose_test.engine import REPOSITORY, Engine

BASE = "stand-in/debian"
STAND_INS = Path(__file__).parent / "stand-ins"
RUN_ELASTICSEARCH = REPOSITORY / "scripts" / "elasticsearch" / "run-elasticsearch"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PIP_OPTIONS = ("index-url", "extra-index-url", "default-timeout")


def public_images() -> dict[str, str]:
    """Return what has to be there, by stand-in: Python's image, and the stores' ones."""
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    images = dict(re.findall(r"^FROM ((python):\S+)", dockerfile, re.MULTILINE))
    compose = (REPOSITORY / "docker-compose.yml").read_text()
    images |= dict(re.findall(r"^    image: (([a-z]+):[^@\s]+)", compose, re.MULTILINE))
    return {name: image for image, name in images.items()}


def without_digests() -> str:
    """Return what takes the digests out of the compose file, since no stand-in has them.

    An empty text if there are none.
    """
    compose = (REPOSITORY / "docker-compose.yml").read_text()
    pinned = re.findall(r"^  ([a-z]+):\n(?:    .*\n)*?    image: ([^@\s]+)@", compose, re.MULTILINE)
    services = "".join(f"  {name}: {{image: '{image}'}}\n" for name, image in pinned)
    return f"services:\n{services}" if services else ""


def make(engine: Engine) -> None:
    """Build every stand-in; what was built before is not built again."""
    if engine.docker("image", "inspect", BASE, check=False).returncode:
        engine.docker("import", "-", BASE, stdin=engine.debian)
    context = engine.root / "srv" / "stand-ins"
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(STAND_INS, context)
    machine = context / "machine"
    machine.mkdir()
    shutil.copy(CERTIFICATES, machine / "certificates.crt")
    (machine / "pip.conf").write_text(pip_configuration())
    shutil.copytree(elasticsearch(), machine / "elasticsearch")
    for name, image in public_images().items():
        engine.docker("build", "--target", name, "--tag", image, "/srv/stand-ins")


def pip_configuration() -> str:
    """Return how this machine's pip finds packages, for the build in the engine."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    lines = ["cert = /etc/machine-certificates.crt"]
    for scope, option, value in re.findall(r"^(\S+)\.([a-z-]+)='(.*)'$", listed, re.MULTILINE):
        if scope in ("global", ":env:") and option in PIP_OPTIONS:
            lines.append(f"{option} = {value}")
    return "\n".join(["[global]", *lines, ""])


def elasticsearch() -> Path:
    """Return the directory of an unpacked server."""
    cache = root_dir() / "elasticsearch-servers"
    run([str(RUN_ELASTICSEARCH), "fetch", f"--cache-dir={cache}"])
    unpacked = sorted(cache.glob("full-*"))
    if not unpacked:
        raise ServerError(f"no Elasticsearch in {cache}")
    return unpacked[-1]
