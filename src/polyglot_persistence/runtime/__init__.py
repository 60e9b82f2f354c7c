"""Process machinery that is independent of stores and orders."""
