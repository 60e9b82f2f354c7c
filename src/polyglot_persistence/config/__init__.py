"""The settings: a checked value made from the environment, and a description for people."""

from polyglot_persistence.config.secret_files import read_api_keys
from polyglot_persistence.config.settings import Described, Settings, load

__all__ = ["Described", "Settings", "load", "read_api_keys"]
