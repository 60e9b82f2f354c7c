"""The names and scripts of the stream: every key and constant on the server, in one place."""

from importlib import resources
from typing import Final

from polyglot_persistence.ports.queue import QUEUE_NAME

STREAM: Final = QUEUE_NAME
GROUP: Final = "workers"

CERTAIN_AFTER: Final = f"{STREAM}:certain"
"""Key of the result of `CERTAIN`."""

RELEASED_OWNER: Final = "released"
"""The consumer that owns released messages; it never reads. Messages that only workers of a newer
schema can read belong to "released-<schema>"."""

RELEASED_IDLE_MS: Final = 86_400_000
"""Given to released messages: above any `claim_idle_seconds`, so that any worker may claim them."""

CONSUMER_SILENT_MS: Final = 3_600_000
"""A live consumer reads every quarter of a second; a consumer silent for an hour is deleted."""


def _script(name: str) -> str:
    return resources.files(f"{__package__}.scripts").joinpath(f"{name}.lua").read_text("utf-8")


TAKE: Final = _script("take")
CERTAIN: Final = _script("certain")
ACK: Final = _script("ack")
LEAVE: Final = _script("leave")
READY: Final = _script("ready")
