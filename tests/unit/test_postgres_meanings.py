"""The table that says what a failure of PostgreSQL means."""

import asyncpg
import pytest

from polyglot_persistence.adapters.postgres.failures import (
    meaning,
    meaning_at_commit,
    meaning_of_effect,
)
from polyglot_persistence.errors import (
    PoisonError,
    PolyglotError,
    UnavailableError,
    UnexplainedError,
    UnknownOutcomeError,
)


def server_error(sqlstate: str) -> Exception:
    """Return what asyncpg raises for an error of the server."""
    error: Exception = asyncpg.PostgresError.new({"S": "ERROR", "C": sqlstate, "M": "words"})
    return error


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [
        ("08006", UnavailableError),  # connection_failure
        ("22003", PoisonError),  # numeric_value_out_of_range
        ("22021", PoisonError),  # character_not_in_repertoire
        ("23514", PoisonError),  # check_violation
        ("25006", UnavailableError),  # read_only_sql_transaction
        ("25P03", UnavailableError),  # idle_in_transaction_session_timeout
        ("28P01", UnavailableError),  # invalid_password
        ("3D000", UnavailableError),  # invalid_catalog_name
        ("40001", UnavailableError),  # serialization_failure
        ("40003", UnknownOutcomeError),  # statement_completion_unknown
        ("40P01", UnavailableError),  # deadlock_detected
        ("42601", UnexplainedError),  # syntax_error: ours, or a trigger's for one order
        ("42P01", UnavailableError),  # undefined_table
        ("53100", UnavailableError),  # disk_full
        ("53300", UnavailableError),  # too_many_connections
        ("54000", PoisonError),  # program_limit_exceeded
        ("54001", UnavailableError),  # statement_too_complex
        ("55P03", UnavailableError),  # lock_not_available
        ("57014", UnavailableError),  # query_canceled
        ("57P01", UnavailableError),  # admin_shutdown
        ("57P03", UnavailableError),  # cannot_connect_now
        ("58030", UnavailableError),  # io_error
        ("P0001", UnexplainedError),  # raise_exception
        ("XX002", UnexplainedError),  # index_corrupted
        ("ZZZZZ", UnexplainedError),
    ],
)
def test_each_state_has_a_meaning(sqlstate: str, kind: type[PolyglotError]) -> None:
    """The state is named, the more special entry counts, and what is unknown may be either."""
    error = meaning(server_error(sqlstate))
    assert type(error) is kind
    assert sqlstate in str(error)
    assert "words" in str(error)


@pytest.mark.parametrize(
    ("sqlstate", "remedy"),
    [
        ("42P01", "run `polyglot migrate`"),
        ("42703", "run `polyglot migrate`"),
        ("3F000", "run `polyglot migrate`"),
        ("26000", "set pool_mode=session in PgBouncer"),
        ("42P05", "set pool_mode=session in PgBouncer"),
        ("57P03", ""),
    ],
)
def test_what_an_operator_can_do_is_said_last(sqlstate: str, remedy: str) -> None:
    """By the error itself, so that nobody has to guess it."""
    error = meaning(server_error(sqlstate))
    assert isinstance(error, UnavailableError)
    assert error.remedy.startswith(remedy)
    assert bool(error.remedy) == bool(remedy)
    assert str(error).endswith(error.remedy)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(111, "refused"),
        ConnectionResetError(),
        TimeoutError(),
        asyncpg.InterfaceError("connection is closed"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_the_driver_says_itself_is_unavailable(error: Exception) -> None:
    """Refused, reset, timed out, closed: none has done anything, until a COMMIT was sent."""
    assert type(meaning(error)) is UnavailableError
    assert type(meaning_at_commit(error)) is UnknownOutcomeError


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [
        ("23503", PoisonError),
        ("40001", UnavailableError),
        ("40P01", UnavailableError),
        ("P0001", UnexplainedError),
        ("40003", UnknownOutcomeError),
        ("57P01", UnknownOutcomeError),
        ("53100", UnknownOutcomeError),
        ("08007", UnknownOutcomeError),
    ],
)
def test_at_commit_only_a_certain_rollback_is_certain(
    sqlstate: str, kind: type[PolyglotError]
) -> None:
    """Everything else may have happened after the commit record was written."""
    assert type(meaning_at_commit(server_error(sqlstate))) is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (server_error("42501"), UnavailableError),  # insufficient_privilege
        (server_error("55P03"), UnavailableError),  # lock_not_available
        (server_error("57014"), UnavailableError),  # query_canceled
        (server_error("57P01"), UnknownOutcomeError),  # admin_shutdown
        (server_error("08006"), UnknownOutcomeError),  # connection_failure
        (TimeoutError(), UnknownOutcomeError),
        (ConnectionResetError("gone"), UnknownOutcomeError),
        (asyncpg.InterfaceError("the connection is closed"), UnknownOutcomeError),
    ],
)
def test_a_statement_that_commits_by_itself_may_be_done(
    error: Exception, kind: type[PolyglotError]
) -> None:
    """Unless the server reported an error of the statement, and not the end of its connection."""
    assert type(meaning_of_effect(error)) is kind
