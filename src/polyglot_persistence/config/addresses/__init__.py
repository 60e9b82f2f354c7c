"""Addresses of the stores, one module each: what is a valid one, and what it says.

Settings keep an address as a text that was checked here; an adapter reads its parts by the same
function. Several hosts of one store stand in one URL: `scheme://login@host:port,host:port/path`.

Invariant: no error in here repeats an address: it may hold a password.
"""
