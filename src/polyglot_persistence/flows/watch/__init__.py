"""Watching the system: health, live figures, and the audit of all copies."""
