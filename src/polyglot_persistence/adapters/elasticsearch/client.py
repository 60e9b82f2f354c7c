"""Elastic's client library, as it is without pyarrow.

The library imports pyarrow where that is installed, as it is for `polyglot load`, to read answers
in a format that nobody here asks for: 37 MB in every process, and 0.3 s at its start.
"""

import sys

_loaded = sys.modules.get("pyarrow")
sys.modules["pyarrow"] = None  # type: ignore[assignment]  # an import of it is an ImportError now
try:
    from elasticsearch import (
        ApiError,
        AsyncElasticsearch,
        TransportError,
        UnsupportedProductError,
    )
    from elasticsearch.serializer import CompatibilityModeJsonSerializer
finally:
    del sys.modules["pyarrow"]
    if _loaded is not None:
        sys.modules["pyarrow"] = _loaded

__all__ = [
    "ApiError",
    "AsyncElasticsearch",
    "CompatibilityModeJsonSerializer",
    "TransportError",
    "UnsupportedProductError",
]
