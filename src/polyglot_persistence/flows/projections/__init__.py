"""Projections of the record, search and sales, and their rebuild."""
