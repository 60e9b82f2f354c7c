"""Address of the search index: of Elasticsearch's nodes, or a directory for tantivy.

http://user:password@host:port,host:port/prefix    https://...    tantivy:///directory
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from polyglot_persistence.config.addresses.hosts import StoreUrl, read_url
from polyglot_persistence.config.addresses.passwords import with_password

_PORTS: Final = {"http": 80, "https": 443, "tantivy": None}
_EXAMPLE: Final = "http://elasticsearch:9200"


def search_url(text: str) -> str:
    """Return the URL if it is one of a search index; its scheme picks the adapter.

    Raises:
        ValueError: saying what is wrong, with an example.
    """
    text = with_password(text)
    _read(text)
    return text


def search_directory(text: str) -> Path | None:
    """Return tantivy's directory; None: the URL means Elasticsearch."""
    url = _read(text)
    return Path(unquote(url.path)) if url.scheme == "tantivy" else None


def node_urls(text: str) -> Sequence[str]:
    """Return a URL for each node of Elasticsearch, with the login of all."""
    url = _read(text)
    head, _, rest = text.partition("://")
    login, at, _ = rest.partition("/")[0].rpartition("@")
    return [f"{head}://{login}{at}{host}{url.path}" for host in url.hosts]


def _read(text: str) -> StoreUrl:
    url = read_url(text, _PORTS, _EXAMPLE)
    if url.scheme != "tantivy" and not url.hosts:
        raise ValueError(f"names no host; e.g. {_EXAMPLE}")
    return url
