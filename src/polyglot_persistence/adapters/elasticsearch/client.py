"""Elastic's client library, imported without pyarrow.

The library imports pyarrow if it is installed, as it is for `polyglot load`, to read a response
format that this project never requests: 37 MB in every process, and 0.3 s at its start.
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
