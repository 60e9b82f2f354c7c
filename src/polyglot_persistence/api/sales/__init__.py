"""The routes of sales."""
