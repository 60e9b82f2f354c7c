"""Reads of single orders: from memory, cache or record, and when a 404 is certain."""
