"""Finds the heads of requests in the bytes of one connection.

The parser (llhttp, by httptools) checks them. It does not say where in its input a head ends, so
that is found here, by the one thing that can end it: an empty line. It is never given a byte of
the next request before the answer to this one is there.

Invariant: of a head that is not complete, at most `head_bytes_max` are kept.
"""

import httptools

from polyglot_persistence.api.protocol.heads import BadHeadError, Head, in_ascii, read_head
from polyglot_persistence.api.web.problems import HEAD_TOO_LARGE
from polyglot_persistence.config.http import HttpLimits

_END = b"\r\n\r\n"
_NOT_HTTP = "this is not an HTTP/1.1 request"


class HeadReader:
    """Reads one head after another; bytes between them go to `pass_body`."""

    def __init__(self, limits: HttpLimits) -> None:
        self._bytes_max = limits.head_bytes_max
        self._headers_max = limits.headers_max
        self._parser = self._new_parser()
        self._parser_waits = False
        self._is_upgrade = False
        self._is_parsed = False
        self._is_1_1 = False
        """Known without the parser, which creates a string each time."""
        self._tail = b""
        self._in_request_line = True
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.size = 0
        """Bytes of the current head; 0: none has started."""
        self.complete = False

    def next(self) -> None:
        """Wait for another head."""
        self.target = b""
        self.headers = []
        self.size = 0
        self.complete = False

    def close(self) -> None:
        """Release the parser, which refers back to this object; reading ends."""
        del self._parser

    def feed(self, data: bytes) -> bytes:
        """Process bytes of a head, and return those after it.

        Raises:
            BadHeadError: this is no head, or too much of one.
        """
        if not self.size:
            data = self._begin(data)
            if not data:
                return data
        # The end is found first, so that what a pipeline holds behind it is not looked at.
        end = self._end_in(data)
        rest = b""
        if end:
            if end < len(data):
                data, rest = data[:end], data[end:]
            if not self.size:
                self._is_1_1 = data.startswith(b" HTTP/1.1", data.find(b"\r\n") - 9)
        else:
            self._tail = (self._tail + data)[1 - len(_END) :]
        if self._in_request_line and not data.isascii():
            line, line_end, others = data.partition(b"\n")
            data = in_ascii(line) + line_end + others
        if not end:
            self._in_request_line = self._in_request_line and b"\n" not in data
        self.size += len(data)
        self._parse(data)
        if end:
            if not self._is_parsed:
                raise BadHeadError(_NOT_HTTP)
            self.complete = True
        return rest

    def read(self) -> tuple[bytes, Head]:
        """Return the method and the parsed headers of a complete head.

        Raises:
            BadHeadError: the head breaks a rule.
        """
        parser = self._parser
        method = parser.get_method()
        if self._is_upgrade and method == b"CONNECT":
            raise BadHeadError(_NOT_HTTP)
        version = "1.1" if self._is_1_1 else parser.get_http_version()
        head = read_head(version, self.headers)
        if self._is_upgrade or head.is_chunked:
            # The old one is done with HTTP, or waits for chunks, whose end it would not tell.
            self._parser = self._new_parser()
            self._parser_waits = False
        else:
            self._parser_waits = bool(head.length)
        return method, head

    def pass_body(self, data: bytes) -> None:
        """Pass bytes of a body to the parser, if it counts them."""
        if self._parser_waits:
            self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """Receive a part of the target from the parser."""
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, from the parser; the white space after it is not part of its value."""
        self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Record that the parser found the end of the head."""
        self._is_parsed = True

    def _begin(self, data: bytes) -> bytes:
        """Return the bytes from the start of a head on."""
        self._tail = b""
        self._in_request_line = True
        self._is_parsed = self._is_upgrade = self._is_1_1 = False
        # There may be empty lines before a request (RFC 9112, 2.2).
        return data.lstrip(_END) if data[0] in _END else data

    def _end_in(self, data: bytes) -> int:
        """Return the end of the head in the bytes, or 0."""
        if self._tail:
            found = (self._tail + data[: len(_END) - 1]).find(_END)
            if found >= 0:
                return found + len(_END) - len(self._tail)
        found = data.find(_END)
        return found + len(_END) if found >= 0 else 0

    def _parse(self, data: bytes) -> None:
        if self.size > self._bytes_max:
            detail = f"a request's head may have {self._bytes_max} bytes"
            raise BadHeadError(detail, HEAD_TOO_LARGE)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._is_upgrade = True  # it is not followed, as RFC 9110 (7.8) lets us
        except httptools.HttpParserError:
            raise BadHeadError(_NOT_HTTP) from None
        if len(self.headers) > self._headers_max:
            raise BadHeadError(
                f"a request must have at most {self._headers_max} headers", HEAD_TOO_LARGE
            )

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # What follows a request that closes is never fed; which transfer codings are taken is for
        # `read_head` to say, with a status of its own. So neither leniency lets anything through.
        parser.set_dangerous_leniencies(
            lenient_data_after_close=True, lenient_transfer_encoding=True
        )
        return parser
