"""Queries, text analysis, matching and ranking."""
