"""Machinery of processes that no store and no order needs to be named for."""
