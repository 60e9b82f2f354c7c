"""The checkers find what they are there to find: histories that are forged, one fault each."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from tests.fault.checkers import Held, Letter, Row, Sum, check
from tests.fault.history import Event

MOMENT = datetime(2026, 11, 1, 10, 20, tzinfo=UTC)
QUARTER = datetime(2026, 11, 1, 10, 15, tzinfo=UTC)
KETTLE, CUP = "kettle", "cup"


@dataclass
class Story:
    """A history and what the stores hold after it."""

    events: list[Event]
    held: Held

    def kinds(self) -> set[str]:
        verdict = check(self.events, self.held, backlog_max=100)
        return {violation.partition(":")[0] for violation in verdict.violations}


def true_story() -> Story:
    """Two single orders, a bulk of two, one of unknown outcome, one refused; all as it should be.

    Order `n` has the id `id-n` and costs `n` cents.
    """
    events: list[Event] = [
        ["write", 1.0, 1, "op-1", "single", [[KETTLE, 1, None]]],
        ["acked", 1.1, 1, ["id-1"]],
        ["write", 1.2, 2, "op-2", "keyed", [[CUP, 2, None]]],
        ["unknown", 1.3, 2, 504],
        ["write", 1.4, 3, "op-2", "keyed", [[CUP, 2, None]]],
        ["acked", 1.5, 3, ["id-2"]],
        ["write", 1.6, 4, "op-3", "bulk", [[CUP, 3, None], [CUP, 4, None]]],
        ["acked", 1.7, 4, ["id-3", "id-4"]],
        ["write", 1.8, 5, "op-4", "import", [[KETTLE, 5, "id-5"]]],
        ["read", 1.85, 90, "id-5"],
        ["answer", 1.9, 90, 404, None, None],
        ["read", 1.91, 91, "id-5"],
        ["answer", 1.92, 91, 200, KETTLE, 5],
        ["unknown", 1.95, 5, 0],
        ["write", 2.0, 6, "op-5", "single", [[KETTLE, 6, None]]],
        ["refused", 2.1, 6, 503],
        ["read", 2.2, 92, "id-1"],
        ["answer", 2.3, 92, 503, None, None],
        ["hits", 2.4, [["id-1", KETTLE, 1]]],
        ["backlog", 2.5, 100],
    ]
    names = {1: KETTLE, 2: CUP, 3: CUP, 4: CUP, 5: KETTLE}
    held = Held(
        record=[Row(f"id-{n}", name, n, MOMENT) for n, name in names.items()],
        quarter_hours={QUARTER: Sum(15, 5)},
        product_days={
            (MOMENT.date(), KETTLE): Sum(6, 2),
            (MOMENT.date(), CUP): Sum(9, 3),
        },
        days={MOMENT.date(): Sum(15, 5)},
        searchable=[(f"id-{n}", name, n) for n, name in names.items()],
        cached={f"id-{n}": ("C", name, n) for n, name in names.items()},
    )
    return Story(events, held)


def _forget_row(story: Story) -> None:
    story.held.record = story.held.record[1:]


def _change_row(story: Story) -> None:
    story.held.record = [story.held.record[0]._replace(product_name=CUP), *story.held.record[1:]]


def _double_id(story: Story) -> None:
    story.held.record = [*story.held.record, story.held.record[0]]


def _double_order(story: Story) -> None:
    story.held.record = [*story.held.record, story.held.record[0]._replace(id="id-9")]


def _answer_a_retry_with_another_id(story: Story) -> None:
    story.events += [
        ["write", 3.0, 7, "op-2", "keyed", [[CUP, 2, None]]],
        ["acked", 3.1, 7, ["id-9"]],
    ]


def _store_what_was_refused(story: Story) -> None:
    story.held.record = [*story.held.record, Row("id-6", KETTLE, 6, MOMENT)]


def _store_what_nobody_sent(story: Story) -> None:
    story.held.record = [*story.held.record, Row("id-7", KETTLE, 7, MOMENT)]


def _divide_a_bulk(story: Story) -> None:
    story.events = [
        ["unknown", 1.7, 4, 504] if event[:3] == ["acked", 1.7, 4] else event
        for event in story.events
    ]
    story.held.record = [row for row in story.held.record if row.cents != 4]


def _deny_an_acknowledged_order(story: Story) -> None:
    story.events += [["read", 3.0, 93, "id-1"], ["answer", 3.1, 93, 404, None, None]]


def _deny_what_was_read_before(story: Story) -> None:
    story.events += [["read", 3.0, 93, "id-5"], ["answer", 3.1, 93, 404, None, None]]


def _answer_another_order(story: Story) -> None:
    story.events += [["read", 3.0, 93, "id-1"], ["answer", 3.1, 93, 200, KETTLE, 2]]


def _fail_a_read(story: Story) -> None:
    story.events += [["read", 3.0, 93, "id-1"], ["answer", 3.1, 93, 500, None, None]]


def _answer_what_nobody_may_hear(story: Story) -> None:
    story.events += [["wrong", 3.0, "POST: 500"]]


def _miscount_a_quarter_hour(story: Story) -> None:
    story.held.quarter_hours = {QUARTER: Sum(16, 5)}


def _miscount_a_product(story: Story) -> None:
    story.held.product_days = {**story.held.product_days, (MOMENT.date(), CUP): Sum(9, 4)}


def _leave_a_day_out_of_the_view(story: Story) -> None:
    story.held.days = {}


def _leave_one_out_of_search(story: Story) -> None:
    story.held.searchable = story.held.searchable[1:]


def _find_one_twice(story: Story) -> None:
    story.held.searchable = [*story.held.searchable, story.held.searchable[0]]


def _find_what_is_not_in_the_record(story: Story) -> None:
    story.events += [["hits", 3.0, [["id-6", KETTLE, 6]]]]


def _leave_one_dirty(story: Story) -> None:
    story.held.dirty = 1
    story.held.cached = {**story.held.cached, "id-1": ("D", KETTLE, 1)}


def _leave_one_in_the_queue(story: Story) -> None:
    story.held.queued = 1


def _leave_one_in_the_outbox(story: Story) -> None:
    story.held.outbox = 1


def _cache_another_amount(story: Story) -> None:
    story.held.cached = {**story.held.cached, "id-1": ("C", KETTLE, 10)}


def _condemn_an_innocent_order(story: Story) -> None:
    story.held.record = story.held.record[1:]
    story.held.letters = [Letter("id-1", "persist", "five workers died of it")]


def _keep_the_letter_of_a_row(story: Story) -> None:
    story.held.letters = [Letter("id-1", "persist", "it was away")]


def _let_the_backlog_grow(story: Story) -> None:
    story.events += [["backlog", 3.0, 101]]


@pytest.mark.parametrize(
    ("forge", "kind"),
    [
        (_forget_row, "lost"),
        (_change_row, "changed"),
        (_double_id, "doubled"),
        (_double_order, "doubled"),
        (_answer_a_retry_with_another_id, "doubled"),
        (_store_what_was_refused, "refused and stored"),
        (_store_what_nobody_sent, "nobody sent"),
        (_divide_a_bulk, "divided"),
        (_deny_an_acknowledged_order, "false 404"),
        (_deny_what_was_read_before, "false 404"),
        (_answer_another_order, "misread"),
        (_fail_a_read, "wrong"),
        (_answer_what_nobody_may_hear, "wrong"),
        (_miscount_a_quarter_hour, "sales"),
        (_miscount_a_product, "sales"),
        (_leave_a_day_out_of_the_view, "sales"),
        (_leave_one_out_of_search, "search"),
        (_find_one_twice, "search"),
        (_find_what_is_not_in_the_record, "search"),
        (_leave_one_dirty, "unsettled"),
        (_leave_one_in_the_queue, "unsettled"),
        (_leave_one_in_the_outbox, "unsettled"),
        (_cache_another_amount, "cache"),
        (_condemn_an_innocent_order, "condemned"),
        (_keep_the_letter_of_a_row, "doubled"),
        (_let_the_backlog_grow, "backlog"),
    ],
)
def test_a_forged_history_is_caught(forge: Callable[[Story], None], kind: str) -> None:
    """One thing is made wrong, and the checker for it says so."""
    story = copy.deepcopy(true_story())
    forge(story)
    assert kind in story.kinds()


def test_a_true_history_passes() -> None:
    """Retries, unknown outcomes, refusals and an early 404 are no violations."""
    story = true_story()
    verdict = check(story.events, story.held, backlog_max=100)
    assert list(verdict.violations) == []
    assert (verdict.acknowledged, verdict.reads) == (4, 3)


def test_an_order_of_unknown_outcome_may_be_missing() -> None:
    """Nobody was promised anything."""
    story = true_story()
    held = story.held
    held.record = [row for row in held.record if row.cents != 5]
    story.events = [event for event in story.events if event[2] not in (90, 91)]
    assert not story.kinds() & {"lost", "refused and stored", "nobody sent"}
