"""The bounds of the HTTP boundary in tests: the defaults of the settings."""

from polyglot_persistence.config import load

HTTP_LIMITS = load({}).http
