"""Decodes the chunked transfer coding (RFC 9112, 7.1) as it arrives.

Extensions and trailers are dropped: nothing here knows any, and a trailer must never be taken for
a header (RFC 9110, 6.5.1).

Invariant: at most one line of framing is kept, and no more than `framing_bytes_max` of framing pass
between two bytes of the body.
"""

import re

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_FIRST_LINE = re.compile(_SIZE.pattern + rb"\r\n")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00-\x08\x0a-\x1f\x7f]*")
_CRLF = b"\r\n"
LINES_A_TURN = 1_000
"""Of framing, before other connections have their turn: about two milliseconds. A read of 256 KB
has 256 chunks if they hold a kilobyte, and fifty thousand if they hold a byte."""


class BadChunkError(Exception):
    """The framing is broken or too long, so the end of the body is unknown."""


class ChunkedBody:
    """Decodes the bytes of one chunked body."""

    def __init__(self, framing_bytes_max: int) -> None:
        self._framing_bytes_max = framing_bytes_max
        self._framing_bytes = 0
        self._line = b""
        self._left = 0
        """Bytes missing of the chunk and of the line end after it."""
        self._in_trailers = False
        self.complete = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the decoded part of the body, and the remaining bytes.

        These come after the body's end, or, while it is not `complete`, are for another turn.

        Raises:
            BadChunkError: this is no chunked coding, or it has too much framing.
        """
        carried: list[bytes] = []
        place = 0
        lines_left = LINES_A_TURN
        while place < len(data) and lines_left and not self.complete:
            if self._left > len(_CRLF):
                piece = data[place : place + self._left - len(_CRLF)]
                carried.append(piece)
                place += len(piece)
                self._left -= len(piece)
                self._framing_bytes = 0
            elif end := self._take_whole(data, place, carried):
                place = end
                lines_left -= 1
            else:
                line_end = data.find(b"\n", place)
                stop = len(data) if line_end < 0 else line_end + 1
                self._take_framing(data[place:stop])
                place = stop
                lines_left -= 1
        return b"".join(carried), data[place:]

    def _take_whole(self, data: bytes, place: int, carried: list[bytes]) -> int:
        """Take a chunk that has arrived completely; return its end, or 0."""
        if self._line or self._left or self._in_trailers:
            return 0
        line = _FIRST_LINE.match(data, place)
        if line is None:
            return 0
        begin = line.end()
        end = begin + int(line[1], 16)
        framing_bytes = self._framing_bytes + begin - place
        if end == begin or data[end : end + 2] != _CRLF or framing_bytes > self._framing_bytes_max:
            return 0
        carried.append(data[begin:end])
        self._framing_bytes = len(_CRLF)
        return end + len(_CRLF)

    def _take_framing(self, piece: bytes) -> None:
        self._framing_bytes += len(piece)
        if self._framing_bytes > self._framing_bytes_max:
            raise BadChunkError(
                f"the framing of chunks must have at most {self._framing_bytes_max} bytes"
            )
        self._line += piece
        if self._left:  # of the line end after a chunk
            if not _CRLF.startswith(self._line):
                raise BadChunkError("a chunk is longer than its size line says")
        elif b"\0" in piece:
            raise BadChunkError("the size of a chunk is invalid")
        if piece.endswith(b"\n"):
            line, self._line = self._line, b""
            self._take_line(line)

    def _take_line(self, line: bytes) -> None:
        if not line.endswith(_CRLF):
            raise BadChunkError("a line of the chunked coding does not end with CR and LF")
        text = line[: -len(_CRLF)]
        if self._left:
            self._left = 0
        elif self._in_trailers:
            if not text:
                self.complete = True
            elif not _TRAILER.fullmatch(text):
                raise BadChunkError("a trailer is not a valid header")
        else:
            size = _SIZE.fullmatch(text)
            if size is None:
                raise BadChunkError("the size of a chunk is invalid")
            self._left = int(size[1], 16)
            if self._left:
                self._left += len(_CRLF)
            else:
                self._in_trailers = True
