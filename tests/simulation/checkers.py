"""What must be true of every run, by what clients sent and heard and by what the stores hold.

Nothing here comes from the flows: bytes are read as JSON, identities are those that clients used.

An order is followed by its name, which its client wants once. A *claim* is one request's part in
it: acknowledged, refused, or of unknown outcome.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from tests.simulation.clients import amount_of
from tests.simulation.determined import REPUBLISH_SECONDS
from tests.simulation.history import Attempt, History, Told
from tests.simulation.plan import Plan


class Holdings(NamedTuple):
    """What the stores hold at the end, as plain data."""

    rows: dict[str, tuple[str, Decimal]]
    """Name and amount of each order of the record, by id."""
    letters: dict[str, list[str]]
    """Names in dead letters, by id."""
    reasons: dict[str, str]
    documents: dict[str, tuple[str, Decimal]]
    entries: dict[str, tuple[str, str]]
    """State and name of each cache entry, by id."""
    dirty: set[str]
    queued: list[str]
    """Names of the orders of all messages."""
    quarter_hours: tuple[int, Decimal]
    product_days: dict[str, tuple[int, Decimal]]
    published: dict[str, int]
    excused_ids: set[str]
    """Orders whose only copy a fault has taken: nobody promised to survive that."""
    excused_names: set[str]
    excuses_answers: bool
    """Whether that goes for what was acknowledged, too: not where the cache alone is not durable,
    and so was never enough."""
    strange_ids: set[str]
    """Of entries of a newer version."""
    doubts: Sequence[tuple[float, float]]
    """From when until when the cache alone may not have been enough."""


class Claim(NamedTuple):
    """One request's part in one order."""

    told: Told
    identity: tuple[str, ...]
    """What makes it the same order when it is sent again: route and key, an id, or nothing."""
    attempt: Attempt


def claims_of(history: History, ids_of_lines: dict[int, tuple[str, ...]]) -> dict[str, list[Claim]]:
    """Return every order's claims, by its name."""
    claims: dict[str, list[Claim]] = defaultdict(list)
    for number, attempt in enumerate(history.attempts):
        given = ids_of_lines.get(attempt.operation, ())
        for line, name in enumerate(attempt.names, start=1):
            if line < attempt.first_line:
                continue
            own_id = given[line - 1] if line <= len(given) else ""
            if own_id:
                identity: tuple[str, ...] = ("id", own_id)
            elif attempt.key is not None:
                identity = (attempt.route, attempt.key)
            else:
                identity = ("attempt", str(number))
            claims[name].append(Claim(_told(attempt, line), identity, attempt))
    return claims


def _told(attempt: Attempt, line: int) -> Told:
    """Return what the answer means for one order of a request."""
    if attempt.route != "import":
        return attempt.told
    if line - attempt.first_line >= attempt.sent_lines:
        return "refused"  # it was never sent
    if attempt.status is None or attempt.status == 500:
        return "unknown"
    if attempt.status != 200 and line not in range(1, attempt.lines_read + 1):
        return "refused"
    if line in attempt.unknown and attempt.status != 503:  # 503: nothing of them is stored
        return "unknown"
    return "refused" if line in (*attempt.not_accepted, *attempt.errors) else "acknowledged"


class Checks:
    """All checks of one run at its end."""

    def __init__(self, plan: Plan, history: History, holdings: Holdings) -> None:
        self._plan = plan
        self._history = history
        self._held = holdings
        ids_of_lines = {one.number: one.ids for one in plan.operations}
        self._claims = claims_of(history, ids_of_lines)
        self._rows_of: dict[str, list[str]] = defaultdict(list)
        for order_id, (name, _) in holdings.rows.items():
            self._rows_of[name].append(order_id)
        self._buried = {name for names in holdings.letters.values() for name in names}
        self._misused = self._misused_identities()

    def violations(self) -> Iterator[str]:
        """Yield whatever is wrong."""
        yield from self._history.wrong
        yield from self._lost()
        yield from self._refused_with_effect()
        yield from self._twice()
        yield from self._bulks_in_part()
        yield from self.denied()
        yield from self._misread()
        yield from self._projections()
        yield from self._cache()
        yield from self._letters()
        yield from self._published_without_bound()
        yield from self._totals_of_imports()
        yield from self._conflicts()

    # --- what may be missing -----------------------------------------------------------------

    def _misused_identities(self) -> set[tuple[str, ...]]:
        """Return those under which clients sent different things."""
        sent: dict[tuple[str, ...], set[Any]] = defaultdict(set)
        for name, claims in self._claims.items():
            for claim in claims:
                what = name if claim.identity[0] == "id" else claim.attempt.names
                sent[claim.identity].add(what)
        return {identity for identity, whats in sent.items() if len(whats) > 1}

    def _may_be_buried(self, name: str) -> bool:
        claims = self._claims.get(name, ())
        return any(
            claim.identity in self._misused
            or any(other.startswith("poison") for other in claim.attempt.names)
            for claim in claims
        )

    def _lost(self) -> Iterator[str]:
        """Nothing acknowledged is unreachable."""
        held = self._held
        for order_id, (at, name) in self._history.acknowledged.items():
            if order_id in self._history.discarded or self._is_excused(order_id):
                continue
            if wrong := self._stored_as_known(order_id, name):
                yield f"{wrong}, known since {at:.3f} s"
        for name, claims in self._claims.items():
            if not any(claim.told == "acknowledged" for claim in claims):
                continue
            if name in self._rows_of or name in self._buried:
                continue
            if held.excuses_answers and name in held.excused_names:
                continue
            if not self._may_be_discarded(name):
                yield f"lost: {name} was acknowledged and is stored nowhere"

    def _is_excused(self, order_id: str) -> bool:
        held = self._held
        return order_id in held.excused_ids and (
            held.excuses_answers or order_id not in self._history.answered
        )

    def _stored_as_known(self, order_id: str, name: str) -> str:
        """Return what is wrong about an order that a client knows of, if anything is."""
        row = self._held.rows.get(order_id)
        is_buried = name in self._held.letters.get(order_id, ())
        if row is not None and row[0] == name:
            is_right = row[1] == Decimal(amount_of(name))
            return "" if is_right else f"{name} ({order_id}) has the amount {row[1]}"
        if is_buried and self._may_be_buried(name):
            return ""
        if row is not None:
            return f"{name} ({order_id}) is stored as {row[0]}"
        if is_buried:
            return f"{name} ({order_id}) is a dead letter: {self._held.reasons.get(order_id)}"
        return f"lost: {name} ({order_id}) is stored nowhere"

    def _may_be_discarded(self, name: str) -> bool:
        """Whether its letter may be among those that an operator has discarded."""
        return bool(self._history.discarded) and self._may_be_buried(name)

    # --- what may not be there ---------------------------------------------------------------

    def _refused_with_effect(self) -> Iterator[str]:
        """No refusal has an effect."""
        held = self._held
        documents = {name for name, _ in held.documents.values()}
        entries = {name for _, name in held.entries.values()}
        for name, claims in self._claims.items():
            if any(claim.told != "refused" for claim in claims):
                continue
            statuses = sorted({str(claim.attempt.status) for claim in claims})
            for where, names in (
                ("in the record", self._rows_of),
                ("among the dead letters", self._buried),
                ("in the search index", documents),
                ("in the cache", entries),
                ("in the queue", held.queued),
            ):
                if name in names:
                    yield f"{name} was refused ({', '.join(statuses)}) and is {where}"
                    break

    def _twice(self) -> Iterator[str]:
        """No order is there twice."""
        for name, ids in self._rows_of.items():
            claims = [one for one in self._claims.get(name, ()) if one.told != "refused"]
            if not self._claims.get(name):
                yield f"nobody sent {name}"
                continue
            permitted = len({claim.identity for claim in claims})
            if len(ids) > max(permitted, 1):
                yield f"{name} is there {len(ids)} times, {permitted} may be: {', '.join(ids)}"

    def _bulks_in_part(self) -> Iterator[str]:
        """A bulk is whole or absent."""
        told: set[str] = set()
        for attempt in self._history.attempts:
            if attempt.route != "bulk" or len(attempt.names) < 2:
                continue
            own = [
                name
                for name in attempt.names
                if all(claim.attempt.names == attempt.names for claim in self._claims[name])
            ]
            counts = {name: len(self._rows_of.get(name, ())) for name in own}
            excused = self._held.excused_names.intersection(own)
            if len(set(counts.values())) > 1 and not excused and str(counts) not in told:
                told.add(str(counts))
                yield f"a bulk is there in part: {counts}"

    # --- what clients heard ------------------------------------------------------------------

    def denied(self) -> Iterator[str]:
        """No id is denied that a client knows."""
        for reading in self._history.readings:
            if reading.status == 500:
                yield f"500 for {reading.order_id} at {reading.asked_at:.3f} s"
            if reading.status != 404:
                continue
            known = self._history.acknowledged.get(reading.order_id)
            if reading.order_id in self._held.strange_ids:
                yield f"404 for an entry of a newer version at {reading.asked_at:.3f} s"
            if known is None or known[0] >= reading.asked_at:
                continue
            if reading.order_id in self._history.discarded or self._is_excused(reading.order_id):
                continue
            yield (
                f"denied: {known[1]} ({reading.order_id}), known since {known[0]:.3f} s, is "
                f"answered 404 at {reading.asked_at:.3f} s"
            )

    def _misread(self) -> Iterator[str]:
        """What is read under an id is what was sent under it."""
        for reading in self._history.readings:
            known = self._history.acknowledged.get(reading.order_id)
            if reading.name and known and reading.name != known[1]:
                claims = self._claims.get(known[1], ())
                if not any(claim.identity in self._misused for claim in claims):
                    yield f"{reading.order_id} is {known[1]}, and was read as {reading.name}"

    def _conflicts(self) -> Iterator[str]:
        """Nobody who uses a key rightly hears that it stands for something else."""
        for name, claims in self._claims.items():
            for claim in claims:
                is_conflict = claim.attempt.status == 422
                is_misused = any(one.identity in self._misused for one in claims)
                if is_conflict and not is_misused:
                    yield f"conflict: {name} was sent under its own key, and is refused"

    def _totals_of_imports(self) -> Iterator[str]:
        """An import's totals are the lines that were sent."""
        for attempt in self._history.attempts:
            is_whole = attempt.route == "import" and attempt.status == 200
            if is_whole and sum(attempt.counts) != attempt.sent_lines:
                yield f"{attempt.sent_lines} lines were imported as {attempt.counts}"

    # --- projections -------------------------------------------------------------------------

    def _projections(self) -> Iterator[str]:
        """Search and sales say what the record says."""
        held = self._held
        if held.documents != held.rows:
            missing = [i for i in held.rows if held.documents.get(i) != held.rows[i]]
            extra = [i for i in held.documents if i not in held.rows]
            yield f"search lacks {len(missing)} orders and has {len(extra)} of none"
        total = len(held.rows), sum((amount for _, amount in held.rows.values()), Decimal(0))
        if held.quarter_hours != total:
            yield f"the quarter hours say {held.quarter_hours}, the record {total}"
        products: dict[str, tuple[int, Decimal]] = {}
        for name, amount in held.rows.values():
            orders, revenue = products.get(name, (0, Decimal(0)))
            products[name] = orders + 1, revenue + amount
        if held.product_days != products:
            yield "the products of the sales are not those of the record"

    def _cache(self) -> Iterator[str]:
        """What the cache holds as persisted is what the record has."""
        held = self._held
        for order_id, (state, name) in held.entries.items():
            row = held.rows.get(order_id)
            if state == "C" and (row is None or row[0] != name):
                yield f"the cache has {name} ({order_id}) as persisted, the record has {row}"
            if state == "X" and order_id not in held.letters and row is None:
                yield f"the cache has {name} ({order_id}) as dead, and there is no letter"
        for order_id in sorted(held.strange_ids - held.dirty):
            yield f"the mark of a newer version's entry {order_id} is gone"

    def _letters(self) -> Iterator[str]:
        """Nothing is condemned without a reason."""
        for order_id, names in self._held.letters.items():
            for name in names:
                if not self._may_be_buried(name):
                    reason = self._held.reasons.get(order_id)
                    yield f"{name} ({order_id}) is a dead letter: {reason}"

    # --- bounds ------------------------------------------------------------------------------

    def _published_without_bound(self) -> Iterator[str]:
        """A retry that is answered from a durable cache adds nothing to the queue."""
        settings_change = any(fault.kind == "cache settings" for fault in self._plan.faults)
        if not self._plan.durable or settings_change:
            return
        for order_id, (_, name) in self._history.acknowledged.items():
            claims = self._claims.get(name, ())
            if not claims or any(
                claim.attempt.route == "import" or claim.identity in self._misused
                for claim in claims
            ):
                continue
            asked = sum(not claim.attempt.replayed for claim in claims)
            times = self._held.published.get(order_id, 0)
            if times > max(asked, 1) + self._republished_max(claims):
                yield f"{name} was published {times} times for {asked} requests"

    def _republished_max(self, claims: Sequence[Claim]) -> int:
        """Return how often retries may have found the cache alone not to be safe."""
        first = min(claim.attempt.sent_at for claim in claims)
        last = max(claim.attempt.heard_at for claim in claims)
        if not any(begin <= last and first <= end for begin, end in self._held.doubts):
            return 0
        windows = int((last - first) / REPUBLISH_SECONDS) + 2  # forgotten all at once
        return windows * self._plan.apis


def plain(raw: bytes) -> tuple[str, str]:
    """Return state and name of a raw entry."""
    head, _, body = raw.partition(b"\n")
    return head[:1].decode(), name_in(body)


def name_in(body: bytes) -> str:
    """Return the name in an order's JSON, empty if there is none."""
    try:
        order = json.loads(body)
    except ValueError:
        return ""
    return str(order.get("product_name", ""))


def name_of_payload(payload: bytes) -> str:
    """Return the name in a dead letter's payload."""
    try:
        return str(json.loads(payload)["order"]["product_name"])
    except (ValueError, KeyError, TypeError):
        return ""


def names_of_message(body: bytes) -> list[str]:
    """Return the names of a message's orders."""
    try:
        return [str(item["order"]["product_name"]) for item in json.loads(body)]
    except (ValueError, KeyError, TypeError):
        return []


def total_of(cells: Iterable[tuple[Decimal, int]]) -> tuple[int, Decimal]:
    """Return orders and revenue of cells."""
    orders, revenue = 0, Decimal(0)
    for amount, count in cells:
        orders += count
        revenue += amount
    return orders, revenue


def by_product(cells: Iterable[tuple[str, Decimal, int]]) -> dict[str, tuple[int, Decimal]]:
    """Return orders and revenue by product."""
    sums: dict[str, tuple[int, Decimal]] = {}
    for name, amount, count in cells:
        orders, revenue = sums.get(name, (0, Decimal(0)))
        sums[name] = orders + count, revenue + amount
    return sums


def most(violations: Sequence[str]) -> str:
    """Return the word that stands for what is wrong: what the shrinker holds on to."""
    kinds = Counter(violation.split(":")[0].split()[0] for violation in violations)
    return kinds.most_common(1)[0][0] if kinds else ""


def text(order_id: UUID | None) -> str:
    """Return an id as clients write it."""
    return str(order_id)
