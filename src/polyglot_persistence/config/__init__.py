"""The settings: a checked value made of the environment, and what to tell people about it."""

from polyglot_persistence.config.settings import Described, Settings, load

__all__ = ["Described", "Settings", "load"]
