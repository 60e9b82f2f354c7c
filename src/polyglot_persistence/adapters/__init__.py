"""Adapters: one folder per store, each translating a driver to a port; no policy."""
