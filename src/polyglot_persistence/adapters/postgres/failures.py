"""Translation of each failure of PostgreSQL or of its driver.

Invariant: only an error caused by the data itself is a `PoisonError`. A server error missing from
the table is an `UnexplainedError`, and so temporary, unless the record takes other orders.
"""

from collections.abc import Sequence

import asyncpg
from asyncpg.exceptions import ClientConfigurationError, TargetServerAttributeNotMatched

from polyglot_persistence.errors import (
    ConfigurationError,
    PoisonError,
    PolyglotError,
    UnavailableError,
    UnexplainedError,
    UnknownOutcomeError,
)

DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
    OverflowError,
)
"""All exceptions that asyncpg raises (a refused or reset connection is an `OSError`; a moment after
the year 9999 in an answer is an `OverflowError`).

It raises `InternalClientError` if a connection has sent a FATAL and not ended yet:
test_a_last_word_without_an_end.
"""

# By SQLSTATE or its class, the first two characters; the longer match counts. A remedy follows a
# semicolon.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_MEANINGS: dict[str, tuple[type[PolyglotError], str]] = {
    "08": (UnavailableError, "the connection to PostgreSQL was lost"),
    "0A": (UnavailableError, "PostgreSQL's schema is being changed"),
    "22": (PoisonError, "PostgreSQL can never hold this value"),
    "23": (PoisonError, "the data breaks a rule of the schema"),
    "25": (UnavailableError, "PostgreSQL ended the transaction, or is read-only"),
    "28": (UnavailableError, "PostgreSQL refused the login"),
    "3D": (UnavailableError, "there is no such database"),
    "3F": (UnavailableError, "there is no such schema; run `polyglot migrate`"),
    "40": (UnavailableError, "PostgreSQL rolled the transaction back in favour of another"),
    "40003": (UnknownOutcomeError, "PostgreSQL does not know whether the statement completed"),
    "42501": (UnavailableError, "PostgreSQL's role lacks a privilege"),
    "42703": (UnavailableError, "the schema is not up to date; run `polyglot migrate`"),
    "42P01": (UnavailableError, "the schema is not up to date; run `polyglot migrate`"),
    "53": (UnavailableError, "PostgreSQL is out of disk, memory or connections"),
    "54": (PoisonError, "the data is over a limit of PostgreSQL"),
    "54001": (UnavailableError, "PostgreSQL's stack is too small for the statement"),
    "55": (UnavailableError, "PostgreSQL could not get a lock in time, or an object is not ready"),
    "55000": (UnavailableError, "PostgreSQL is a standby, or an object is not ready"),
    "57": (UnavailableError, "PostgreSQL ended the statement (deadline, or it is shutting down)"),
    "58": (UnavailableError, "PostgreSQL met an error of its operating system"),
}
_OTHER = (UnexplainedError, "PostgreSQL refused it")

SHARED_STATES = ("26000", "42P05")
"""A prepared statement is missing, or existed already: it is another client's session."""

# Errors of the driver itself; the first match counts (a `TimeoutError` is an `OSError`).
_DRIVER_MEANINGS: Sequence[tuple[type[Exception], type[PolyglotError], str]] = (
    (TimeoutError, UnavailableError, "PostgreSQL did not answer in time"),
    (OSError, UnavailableError, "PostgreSQL cannot be reached"),
    (TargetServerAttributeNotMatched, UnavailableError, "PostgreSQL is a standby, or read-only"),
    (ClientConfigurationError, ConfigurationError, "POSTGRES_DSN cannot be used"),
    (OverflowError, UnavailableError, "PostgreSQL holds what this program cannot read"),
    (ValueError, PoisonError, "the value cannot be sent to PostgreSQL"),
    (Exception, UnavailableError, "PostgreSQL failed"),
)

# After any other error during COMMIT the commit record may have been written already: a backend
# that is terminated then reports 57P01, whatever the outcome of the transaction.
# A deferred trigger raises its errors before it.
_CERTAINLY_ROLLED_BACK = ("23", "40001", "40P01", "25P02", "P0")

# A statement that commits by itself may be done when the server ends the connection.
_PERHAPS_DONE = ("08", "40003", "57P")


def meaning(error: Exception) -> PolyglotError:
    """Return the error for a failed statement; its transaction is rolled back, or never began.

    Raise it `from` the driver's error.
    """
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate in SHARED_STATES:
        return shared_session()
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate:
        kind, words = _MEANINGS.get(error.sqlstate) or _MEANINGS.get(error.sqlstate[:2], _OTHER)
        words, _, remedy = words.partition("; ")
        message = f"{words}: {_first_line(error)} ({error.sqlstate})"
        return UnavailableError(message, remedy=remedy) if remedy else kind(message)
    kind, words = next((k, w) for of, k, w in _DRIVER_MEANINGS if isinstance(error, of))
    return kind(f"{words}: {_first_line(error)}")


def shared_session() -> UnavailableError:
    """Return the error for a pooler between us and PostgreSQL that shares sessions."""
    return UnavailableError(
        "a pooler shares sessions of PostgreSQL between clients",
        remedy="set pool_mode=session in PgBouncer and leave server_reset_query at DISCARD ALL, or "
        "name the server itself in POSTGRES_DSN",
    )


def meaning_at_commit(error: Exception) -> PolyglotError:
    """Return the error for a failed COMMIT: unknown, unless the server certainly undid it."""
    state = (error.sqlstate if isinstance(error, asyncpg.PostgresError) else None) or ""
    if state.startswith(_CERTAINLY_ROLLED_BACK):
        return meaning(error)
    return UnknownOutcomeError(f"the answer to COMMIT was lost: {_first_line(error)}")


def meaning_of_effect(error: Exception) -> PolyglotError:
    """Return the error for a failed statement that commits by itself.

    The outcome is unknown unless the server has reported an error of the statement.
    """
    state = (error.sqlstate if isinstance(error, asyncpg.PostgresError) else None) or ""
    if state and not state.startswith(_PERHAPS_DONE):
        return meaning(error)
    return UnknownOutcomeError(f"the answer to a statement was lost: {_first_line(error)}")


def is_of_a_standby(error: Exception) -> bool:
    """Return whether an error is unlikely from a primary: read-only, or in recovery."""
    return isinstance(error, asyncpg.PostgresError) and error.sqlstate in ("25006", "55000")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
