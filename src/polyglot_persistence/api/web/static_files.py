"""Files of the package, served as they are, with a tag by which browsers keep them."""

import functools
import hashlib
from importlib.resources import files

from starlette.requests import Request

from polyglot_persistence.api.web.replies import Reply


@functools.cache
def packaged_file(path: str) -> tuple[bytes, bytes]:
    """Return a file by its path below `api/service/`, and its entity tag."""
    body = files("polyglot_persistence.api.service").joinpath(path).read_bytes()
    return body, b'"%b"' % hashlib.sha256(body).hexdigest()[:32].encode()


def file_reply(request: Request, path: str, content_type: bytes) -> Reply:
    """Return a file, or 304 if the client has it already."""
    body, etag = packaged_file(path)
    headers = (
        (b"content-type", content_type),
        (b"cache-control", b"no-cache"),
        (b"x-content-type-options", b"nosniff"),
        (b"etag", etag),
    )
    if request.headers.get("if-none-match", "").encode() == etag:
        return 304, headers, b""
    return 200, headers, body
