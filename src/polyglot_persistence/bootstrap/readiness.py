"""Announces once that a process does its work, to the process that started it.

The way of s6 (https://skarnet.org/software/s6/notifywhenup.html): a newline on a descriptor that
was inherited, which is then closed. Unlike a port it needs no number that is free.
"""

import asyncio
import contextlib
import os


async def announce(event: asyncio.Event, descriptor: int | None) -> None:
    """Write the newline when the event is set; without a descriptor, to nobody."""
    if descriptor is None:
        return
    await event.wait()
    with contextlib.suppress(OSError):  # nobody waits for it any more
        os.write(descriptor, b"\n")
    os.close(descriptor)
