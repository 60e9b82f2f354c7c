"""The file of API keys, as an API that is another user than `polyglot up` may read it.

Root reads the file that the operator names, whoever owns it and whatever took its place, and keeps
a copy in a directory that only root writes and only the API's user reads:

    data_dir/keys/api.keys

Invariant: fails closed: while there is nothing to read, or it cannot be copied, there is no copy.
Invariant: no secret passes: whoever can replace the file by a link could have root read another one
for the API, so what is no `name:scopes:hash` goes as a single character.
"""

import asyncio
import os
import stat
from pathlib import Path

from polyglot_persistence import telemetry
from polyglot_persistence.domain.access import listed_entries
from polyglot_persistence.embedded.directory import Directory
from polyglot_persistence.errors import ConfigurationError

SETTING = "API_KEYS_FILE"
DIRECTORY = "keys"

INTERVAL_SECONDS = 0.5
"""Between two looks at the file. The API looks at the copy every `KEYS_INTERVAL_SECONDS`
(bootstrap/access.py), and both have to be over within the 2 s that operators are told."""

_COPY = "api.keys"
_HEAD = f"# A copy; its entries are those of the file that {SETTING} names."
_BYTES_MAX = 256 * 1024
_MODE = 0o750

_log = telemetry.logger("up")


class HandedKeys:
    """One file of keys and its copy, which the group can read."""

    def __init__(self, source: Path, files: Directory, group: int) -> None:
        self.directory = files.path / DIRECTORY
        self._source = source
        self._files = files
        self._group = group
        self._fault = ""
        self._handed: str | None = None

    @property
    def copy(self) -> Path:
        """The file that the API reads."""
        return self.directory / _COPY

    def begin(self) -> None:
        """Make the copy, before the API starts.

        Raises:
            ConfigurationError: it cannot be made.
        """
        self._files.make(DIRECTORY)
        with self._files.within(DIRECTORY) as directory:
            os.fchown(directory.descriptor, -1, self._group)
            os.fchmod(directory.descriptor, _MODE)
        self._handed = None
        self._renew()
        if self._fault:
            raise ConfigurationError(f"{SETTING}: {self._fault}")

    async def keep(self) -> None:
        """Keep the copy as the file is, for ever."""
        while True:
            self._renew()
            await asyncio.sleep(INTERVAL_SECONDS)

    def _renew(self) -> None:
        try:
            self._hand_over("\n".join([_HEAD, *listed_entries(_text_of(self._source)), ""]))
            fault = ""
        except (OSError, ValueError) as error:
            self._withdraw()
            reason = getattr(error, "strerror", None) or str(error)
            fault = f"cannot hand over {self._source}: {reason}"
        if fault and fault != self._fault:
            _log.error("api_keys_not_handed_over", path=str(self._source), reason=fault)
        elif self._fault and not fault:
            _log.info("api_keys_handed_over", path=str(self._source))
        self._fault = fault

    def _hand_over(self, text: str) -> None:
        if text != self._handed:
            with self._files.within(DIRECTORY) as directory:
                directory.write(_COPY, text, group=self._group)
            self._handed = text

    def _withdraw(self) -> None:
        self._handed = None
        with self._files.within(DIRECTORY) as directory:
            directory.remove(_COPY)


def _text_of(path: Path) -> str:
    """Return what the file holds now.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file, is too long, or no text.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no regular file")
        content = file.read(_BYTES_MAX + 1)
    if len(content) > _BYTES_MAX:
        raise ValueError(f"it has more than {_BYTES_MAX // 1024} KiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is no UTF-8 text") from None
