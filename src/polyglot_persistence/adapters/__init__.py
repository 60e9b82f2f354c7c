"""Adapters: one folder a store, each translating a driver to a port; no policy."""
