"""Restart policy of child processes: when one is restarted, and when it counts as hung.

```
  running ── ends ──────────────────────────────── pause (0.1 s, doubling to 10 s) ── running
     └────── no sign of life in SILENT_LOOKS_MAX looks ── SIGKILL ──┘
```

Looks are counted, not seconds. A parent that was suspended, or that is short of CPU time like its
child, looks less often, and so waits longer.
"""

import signal
import time

from polyglot_persistence.runtime.pauses import Pauses

RESTART_PAUSE_SECONDS_MIN = 0.1
RESTART_PAUSE_SECONDS_MAX = 10.0
RESTART_FORGIVEN_SECONDS = 30.0
"""A child that ran for this long is restarted after the shortest pause."""

LOOK_SECONDS = 5.0
SILENT_LOOKS_MAX = 6
"""Half a minute. The longest legitimate pause of an event loop is about a second (parsing the
largest body), and clients of a silent process time out long before."""

STARTING_LOOKS_MAX = 24
"""Two minutes before the first heartbeat: a child may load its program from a slow disk."""


class Supervision:
    """The policy for one child and its successors."""

    def __init__(self) -> None:
        self._pauses = Pauses(RESTART_PAUSE_SECONDS_MIN, RESTART_PAUSE_SECONDS_MAX)
        self.started()

    def started(self) -> None:
        """Note that the child was started just now."""
        self._started = time.monotonic()
        self._silent_looks = 0
        self._silent_looks_max = STARTING_LOOKS_MAX

    def hangs(self, *, is_alive: bool) -> bool:
        """Note whether this look found a heartbeat; return whether to kill the child."""
        if is_alive:
            self._silent_looks = 0
            self._silent_looks_max = SILENT_LOOKS_MAX
            return False
        self._silent_looks += 1
        return self._silent_looks >= self._silent_looks_max

    def pause_seconds(self) -> float:
        """Return the pause before the restart of a child that has exited."""
        if time.monotonic() - self._started > RESTART_FORGIVEN_SECONDS:
            self._pauses.begin_again()
        return self._pauses.next()


def exit_text(code: int) -> str:
    """Return a text that says how a process exited; `code` as in `subprocess.Popen.returncode`."""
    return f"ended with code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
