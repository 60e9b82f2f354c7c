"""polyglot-persistence: an order service with a write-behind cache that never loses an order."""

__version__ = "0.2.0"
