"""Admission of requests: API keys, scopes and rates.

Both lanes share one `Access` object per process.

The scopes given to `Access` decide what clients without a key may do. Outside of tests they never
include operating: neither a loopback address nor the Host header proves that a client is on this
machine, because a proxy on the same machine has that address and may send any host.

Invariant: a key is looked up by its hash, and hashes are compared in constant time. Timing reveals
at most something about the hash of the sent key, from which no key can be derived.
Invariant: errors, log lines and metrics contain at most the public prefix of a sent key.
"""

import asyncio
import hmac
from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

from polyglot_persistence.api.web.failed_authentication import FailedAuthentication
from polyglot_persistence.api.web.rate_limits import RateLimits
from polyglot_persistence.api.web.replies import Headers
from polyglot_persistence.domain.access import ApiKey, Scope, digest_of, public_prefix
from polyglot_persistence.errors import ForbiddenError, UnauthenticatedError

_BEARER = b"bearer "


class Admission(NamedTuple):
    """A request that may be answered."""

    client: str
    """The name of its key; empty without one. Idempotency keys are separate per name."""
    headers: Headers = ()
    """Headers of every answer to it."""


_ANYBODY = Admission("")


class Access:
    """The valid keys, the scopes granted without a key, and the rates."""

    def __init__(
        self,
        keys: Sequence[ApiKey] = (),
        *,
        without_key: frozenset[Scope] = frozenset({Scope.READ, Scope.WRITE}),
        rate_limits: RateLimits | None = None,
        failures: FailedAuthentication | None = None,
    ) -> None:
        self._without_key = without_key
        self._rate_limits = rate_limits
        self._failures = failures
        self._going_on: WeakKeyDictionary[asyncio.Event, tuple[Scope, Headers]] = (
            WeakKeyDictionary()
        )
        self._keys: dict[bytes, ApiKey] = {}
        self.revision = 0
        """Changes whenever the keys change."""
        everybody = {Scope.READ, Scope.WRITE} <= without_key
        self.unrestricted = everybody and rate_limits is None
        """Whether placing and reading orders needs no check for requests without a key."""
        self.replace_keys(keys)

    def replace_keys(self, keys: Sequence[ApiKey]) -> None:
        """Replace the valid keys, from the next request on.

        Running requests (`until_revoked`) end if they would no longer be admitted.
        """
        self._keys = {key.digest: key for key in keys}
        self.revision += 1
        for revoked, (scope, headers) in list(self._going_on.items()):
            if not self.may(scope, headers):
                revoked.set()

    def until_revoked(self, scope: Scope, headers: Headers) -> asyncio.Event:
        """Return an event that is set once a running request would no longer be admitted.

        It is tracked for as long as the caller keeps a reference.
        """
        revoked = asyncio.Event()
        self._going_on[revoked] = scope, headers
        if not self.may(scope, headers):  # already, while its body was read
            revoked.set()
        return revoked

    def check_again(self, scope: Scope, headers: Headers, revision: int) -> None:
        """Raise as `admit` does, if a request admitted at a revision would now be refused.

        Called when the body is complete, maybe an hour later; it does not count for the rate.
        """
        if revision != self.revision and scope is not Scope.PUBLIC:
            self._check(scope, headers)

    def failed(
        self, error: UnauthenticatedError, headers: Headers, address: str, route: str
    ) -> None:
        """Log and count a request that `admit` refused, once.

        Raises:
            TooManyRequestsError: its address failed too often.
        """
        if self._failures is not None:
            prefix = public_prefix(_secret(headers) or b"")
            self._failures.count(address, route, error.code or "no_key", prefix)

    def admit(self, scope: Scope, headers: Headers, address: str) -> Admission:
        """Admit a request and return its client.

        Raises:
            UnauthenticatedError: a valid key is needed.
            ForbiddenError: the key is valid but lacks the scope.
            TooManyRequestsError: the client exceeded its rate.
        """
        if scope is Scope.PUBLIC:
            return _ANYBODY
        key = self._check(scope, headers)
        if self._rate_limits is None:
            return _ANYBODY if key is None else Admission(key.name)
        # Names of keys contain no space, so no address looks like one.
        client = f"address {address}" if key is None else key.name
        return Admission("" if key is None else key.name, self._rate_limits.take(client))

    def may(self, scope: Scope, headers: Headers) -> bool:
        """Whether a request with these headers would be admitted; not counted for the rate."""
        try:
            self._check(scope, headers)
        except (UnauthenticatedError, ForbiddenError):
            return False
        return True

    def _check(self, scope: Scope, headers: Headers) -> ApiKey | None:
        """Return the request's key, if it has one; raise as `admit` does."""
        secret = _secret(headers)
        key = self._known(secret) if secret is not None and self._keys else None
        if key is None:
            self._check_anybody(scope, known=secret is None or not self._keys)
        elif scope not in key.scopes and (scope is Scope.ADMIN or scope not in self._without_key):
            raise ForbiddenError(f"this needs an API key with the scope {scope.value}", scope.value)
        return key

    def _known(self, secret: bytes) -> ApiKey | None:
        digest = digest_of(secret)
        key = self._keys.get(digest)
        return key if key is not None and hmac.compare_digest(key.digest, digest) else None

    def _check_anybody(self, scope: Scope, *, known: bool) -> None:
        """Raise unless a client without a key may ask; one with a wrong key may not."""
        if not known:
            raise UnauthenticatedError("this API key is not valid", "invalid_token")
        if scope not in self._without_key:
            detail = f"this needs an API key with the scope {scope.value}"
            if not self._keys:
                detail += "; none is set up (API_KEYS)"
            raise UnauthenticatedError(detail)


def _secret(headers: Headers) -> bytes | None:
    """Return the key that came with a request: `X-API-Key`, or else `Authorization: Bearer`."""
    secret: bytes | None = None
    for name, value in headers:
        if name == b"x-api-key":
            return value.strip()
        if name == b"authorization" and value[: len(_BEARER)].lower() == _BEARER:
            secret = value[len(_BEARER) :].strip()
    return secret
