"""The routes of search and suggestions."""
