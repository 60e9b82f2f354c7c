"""The bounds of the HTTP boundary in tests: the defaults of the settings."""

from polyglot_persistence.api.protocol.limits import HttpLimits
from polyglot_persistence.config import load

_SETTINGS = load({})
HTTP_LIMITS = HttpLimits(*[getattr(_SETTINGS, f"http_{name}") for name in HttpLimits._fields])
