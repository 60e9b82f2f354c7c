"""The `scale` bench's own logic: its questions, what it watches, and how it judges an audit."""

import asyncio
import itertools
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from bench.beside import Watched, WrongAnswerError, beside, told
from bench.drift import unlike
from bench.questions import TYPISTS, first_letters, searches, typed
from polyglot_persistence.domain.drift import Drift

ROOT = Path(__file__).parents[2]
NAMES = {"STRAWBERRIES 16 OZ": 3, "FRZN MEAT ALTERNATIVES": 1}


def test_no_question_is_asked_twice() -> None:
    """Else what was asked before would be among what is new."""
    found = searches([*NAMES, *NAMES])
    asked = [unquote(path.partition("q=")[2]) for path in found]
    words = ("strawberries", "frzn", "meat", "alternatives")
    assert sorted(word for word in asked if " " not in word) == sorted(words)
    assert len(set(asked)) == len(asked) == 4 + 6
    assert found == searches(NAMES)


def test_names_are_typed_key_by_key_by_several_people() -> None:
    """From the first word on, or from a later one that is no size."""
    paths = typed(NAMES, 40 * TYPISTS)
    assert len(paths) == 40 * TYPISTS
    texts = [unquote(path.partition("q=")[2]) for path in paths]
    assert {text for text in texts if len(text) == 2} == {"st", "fr", "me", "al"}
    one = texts[::TYPISTS]
    for before, after in itertools.pairwise(one):
        assert after[:-1] == before or len(after) == 2
    assert [path[-2:] for path in first_letters(NAMES)] == ["=a", "=f", "=m", "=s"]


@pytest.mark.parametrize(
    ("status", "total", "total_is", "may_grow", "right"),
    [
        (200, 7, "exact", False, True),
        (200, 8, "exact", False, False),
        (200, 8, "exact", True, True),
        (200, 6, "exact", True, False),
        (200, 0, "exact", True, False),
        (200, 7, "at_least", False, False),
        (503, 7, "exact", False, False),
    ],
)
def test_a_watched_search_is_never_wrong(
    status: int, total: int, total_is: str, may_grow: bool, right: bool
) -> None:
    """An error, fewer orders than there are, and more where none come are wrong."""
    watched = Watched("/api/search?q=tea", 7, may_grow=may_grow)
    body = json.dumps({"total": total, "total_is": total_is}).encode()
    if right:
        watched.look(status, body)
    else:
        with pytest.raises(WrongAnswerError):
            watched.look(status, body)


def test_what_was_found_once_is_found_ever_after() -> None:
    """A total that has grown does not fall back."""
    watched = Watched("/api/search?q=tea", 7, may_grow=True)
    watched.look(200, b'{"total": 9, "total_is": "exact"}')
    with pytest.raises(WrongAnswerError, match="8 of 9"):
        watched.look(200, b'{"total": 8, "total_is": "exact"}')


def test_what_was_not_looked_at_is_not_right() -> None:
    """A watcher that never looked has seen nothing wrong."""
    with pytest.raises(WrongAnswerError, match="no search"):
        told([Watched("/api/search?q=tea", 7)])


async def test_a_failure_beside_ends_the_body_and_is_raised_as_it_is() -> None:
    """Nobody waits an hour for a rebuild during which a search was wrong."""

    async def fail(_ended: asyncio.Event) -> None:
        raise WrongAnswerError("empty")

    async def go_on(ended: asyncio.Event) -> None:
        await ended.wait()

    with pytest.raises(WrongAnswerError, match="empty"):
        async with beside(go_on, fail):
            await asyncio.Event().wait()


async def test_works_end_with_the_body() -> None:
    """And what the body raises is raised."""
    done = []

    async def go_on(ended: asyncio.Event) -> None:
        await ended.wait()
        done.append(True)

    async with beside(go_on, go_on):
        await asyncio.sleep(0)
    assert done == [True, True]
    with pytest.raises(ValueError, match="mine"):
        async with beside(go_on):
            raise ValueError("mine")


def test_an_audit_that_misses_a_kind_is_told_by_name() -> None:
    """As is one that repairs less than it found, or finds what nobody planted."""
    planted = {"stale_entry": 5, "lost_order": 5, "missing_document": 5}
    nothing = {"found": 0, "repaired": 0}
    report = {drift.value: nothing for drift in Drift}
    five = {"found": 5, "repaired": 5}
    report |= {"missing_document": five, "lost_order": {"found": 5, "repaired": 4}}
    report |= {"extra_document": {"found": 1, "repaired": 1}}
    assert list(unlike(planted, report, repaired=True)) == [
        "extra_document: 0 planted, 1 found, 1 repaired",
        "stale_entry: 5 planted, 0 found, 0 repaired",
        "lost_order: 5 planted, 5 found, 4 repaired",
    ]
    report = {**dict.fromkeys(report, nothing), "stale_entry": {"found": 5, "repaired": 0}}
    assert not list(unlike({"stale_entry": 5}, report, repaired=False))


def test_the_benches_need_nothing_that_only_tests_have() -> None:
    """`make bench` installs no pytest, and one of them plants drift as the tests do."""
    code = "import sys; sys.modules['pytest'] = None; import bench.__main__"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
