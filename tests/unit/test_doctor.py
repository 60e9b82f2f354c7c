"""What `polyglot doctor` makes of what the stores say."""

import pytest

from polyglot_persistence.bootstrap.doctor import Finding, findings_of
from polyglot_persistence.flows.watch.health import Health, StoreHealth
from polyglot_persistence.ports.state import StoreState, StoreWarning


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            StoreHealth(None, "away"),
            [Finding("record", "FAIL", "away", "start it, or correct POSTGRES_DSN")],
        ),
        (
            StoreHealth(None, "a role; without a database", "grant it"),
            [Finding("record", "FAIL", "a role; without a database", "grant it")],
        ),
        (
            StoreHealth(StoreState("9", (StoreWarning("old; or unknown"), StoreWarning("x", "y")))),
            [
                Finding("record", "PASS", "9", ""),
                Finding("record", "WARN", "old; or unknown", ""),
                Finding("record", "WARN", "x", "y"),
            ],
        ),
    ],
)
def test_a_finding_says_what_is_wrong_and_what_to_do(
    found: StoreHealth, expected: list[Finding]
) -> None:
    """Each apart, whatever characters are in them."""
    health = Health({"record": found}, accepting=True, mode="normal")
    assert findings_of(health) == expected
