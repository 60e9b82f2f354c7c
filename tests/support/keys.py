"""The API key of tests that operate a service on servers, where nobody may without one."""

from collections.abc import Mapping

from polyglot_persistence.domain.access import ApiKey, Scope, digest_of

SECRET = "pp_only-for-tests"

ENVIRONMENT: Mapping[str, str] = {
    "API_KEYS": ApiKey("tests", frozenset({Scope.ADMIN}), digest_of(SECRET.encode())).line,
    "ANONYMOUS_SCOPES": "read,write",
}
"""Settings of an API that knows the key, and lets everybody place and read orders."""


def key_headers(path: str) -> Mapping[str, str]:
    """Return the key for a path that needs one, or tells more to its owner."""
    is_for_operators = path.startswith("/api/admin/") or path == "/health/ready"
    return {"X-API-Key": SECRET} if is_for_operators else {}
