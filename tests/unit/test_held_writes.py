"""Writes of one turn of the event loop leave together, in order, and none is lost at a close."""

import asyncio
from collections.abc import Callable

import pytest

from polyglot_persistence.api.protocol.held_writes import HELD_BYTES_MAX, HeldTransport, Turn


class Wire(asyncio.Transport):
    """The real transport's place: notes what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


async def _turn_ends() -> None:
    await asyncio.sleep(0)


async def test_what_is_written_in_a_turn_is_one_write_at_its_end() -> None:
    """An answer of several pieces costs one call of the kernel."""
    wire = Wire()
    held = HeldTransport(wire, Turn())
    held.write(b"head, ")
    held.write(b"body")
    assert wire.writes == []
    await _turn_ends()
    assert wire.writes == [b"head, body"]
    held.write(b"next")
    await _turn_ends()
    assert wire.writes == [b"head, body", b"next"]


async def test_connections_are_written_in_the_order_in_which_they_had_something() -> None:
    """Nobody waits for longer than a turn, whoever else writes."""
    turn = Turn()
    wires = [Wire() for _ in range(3)]
    log: list[int] = []
    for number, wire in enumerate(wires):
        held = HeldTransport(wire, turn)
        write = wire.write

        def noted(data: bytes, number: int = number, write: Callable[..., None] = write) -> None:
            log.append(number)
            write(data)

        wire.write = noted  # type: ignore[assignment,method-assign]
        held.write(b"%d" % number)
    await _turn_ends()
    assert log == [0, 1, 2]
    assert [wire.writes for wire in wires] == [[b"0"], [b"1"], [b"2"]]


async def test_what_is_held_is_bounded() -> None:
    """A long answer is handed on in the turn that makes it, so that flow control sees it."""
    wire = Wire()
    held = HeldTransport(wire, Turn())
    held.write(b"x")
    held.write(bytes(HELD_BYTES_MAX))
    assert wire.writes == [b"x" + bytes(HELD_BYTES_MAX)]
    held.write(b"y")
    await _turn_ends()
    assert b"".join(wire.writes) == b"x" + bytes(HELD_BYTES_MAX) + b"y"


async def test_a_close_writes_first_what_is_held() -> None:
    """The last answer of a connection reaches its client."""
    wire = Wire()
    held = HeldTransport(wire, Turn())
    held.write(b"last")
    held.close()
    assert wire.writes == [b"last"]
    assert held.is_closing()
    await _turn_ends()
    assert wire.writes == [b"last"]


@pytest.mark.parametrize("lost", [Wire.close, HeldTransport.abort])
async def test_a_client_that_is_gone_is_written_nothing(lost: Callable[..., None]) -> None:
    """A connection that is lost or aborted inside the turn takes what is held with it."""
    wire = Wire()
    held = HeldTransport(wire, Turn())
    held.write(b"late")
    lost(wire if lost is Wire.close else held)
    await _turn_ends()
    assert wire.writes == []
