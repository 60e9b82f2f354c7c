"""Answering for one order: from memory, the cache or the record, and when a 404 is certain."""
