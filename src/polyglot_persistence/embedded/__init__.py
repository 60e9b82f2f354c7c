"""Starts and stops the bundled PostgreSQL and Valkey servers."""
