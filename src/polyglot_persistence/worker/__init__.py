"""The endless loops of the worker, each with one owner; the effects are in flows."""
