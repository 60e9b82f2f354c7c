"""A Redis of the machine's own, run in a test's directory exactly as the bundled Valkey is."""

import shutil
from pathlib import Path

from polyglot_persistence.embedded.directory import Directory
from polyglot_persistence.embedded.identity import SAME
from polyglot_persistence.embedded.server import bare_environment
from polyglot_persistence.embedded.socket_directory import open_socket_directory
from polyglot_persistence.embedded.valkey import DATA, SOCKET_NAME, EmbeddedValkey


class InstalledRedis(EmbeddedValkey):
    """The same configuration and owner; another program."""

    async def _spawn(self, files: Directory) -> None:
        files.make(DATA)
        self._socket = open_socket_directory(files, SOCKET_NAME, SAME) / SOCKET_NAME
        configuration = files.path / "redis.conf"
        configuration.write_text(self._configuration(files.path / DATA, self._socket))
        await self.child.start([_binary(), configuration], bare_environment())


def _binary() -> Path:
    found = shutil.which("redis-server")
    assert found is not None, "redis-server is not installed"
    return Path(found)
