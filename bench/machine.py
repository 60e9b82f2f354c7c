"""On what was measured: the machine and the versions."""

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from bench.sides import Product
from bench.stores import Cache

PACKAGES = ("uvicorn", "uvloop", "httptools", "msgspec", "starlette", "asyncpg", "hiredis")


async def facts(product: Product, servers: Mapping[str, str]) -> dict[str, str]:
    """Return what somebody needs to know to compare."""
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line for line in cpus if line.startswith("model name")), "unknown")
    memory = Path("/proc/meminfo").read_text().split()[1]
    info = (await Cache(f"redis://{servers['REDIS_ADDR']}/1").command("INFO", "server")).decode()
    redis = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    elasticsearch = await product.index.call("GET", "/")
    return {
        "processor": f"{os.cpu_count()} x {model.partition(':')[2].strip()}",
        "memory": f"{int(memory) / 2**20:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "redis": redis.get("redis_version", "unknown"),
        "rabbitmq": await product.queues.version(),
        "postgresql": await product.record.version(),
        "elasticsearch": elasticsearch["version"]["number"],
        **{package: version(package) for package in PACKAGES},
    }


def load_average() -> float:
    """Return how many processes wanted a processor in the last minute."""
    return os.getloadavg()[0]


def commit(root: Path) -> str:
    """Return the commit that is checked out, marked if files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
