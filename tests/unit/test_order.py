"""The rules of an order, and its bytes."""

import unicodedata
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from polyglot_persistence.domain import codec
from polyglot_persistence.domain.entry import EntryState
from polyglot_persistence.domain.order import (
    AMOUNT_MAX,
    AcceptedOrder,
    Order,
    derived_id,
    from_micros,
    new_id,
    parse_amount,
    parse_name,
    stored_name,
    to_micros,
)
from polyglot_persistence.domain.units import whole_units
from polyglot_persistence.errors import InvalidError, PoisonError

NAMES = (
    st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=200)
    .map(str.strip)
    .filter(bool)
)
AMOUNTS = st.decimals(0, AMOUNT_MAX, places=2, allow_nan=False, allow_infinity=False).map(abs)
MOMENTS = st.integers(0, 4_102_444_800_000_000).map(from_micros)
"""Until the year 2100."""
ORDERS = st.builds(Order, st.uuids(), NAMES, AMOUNTS, MOMENTS)
ACCEPTED = st.builds(
    lambda order, at, given_at: AcceptedOrder(order, at, order.id, 1, given_at),
    ORDERS,
    MOMENTS,
    st.booleans(),
)


@pytest.mark.parametrize(
    ("text", "cents"),
    [
        ("0", "0.00"),
        ("12.3", "12.30"),
        ("1e2", "100.00"),
        ("9999999999.99", "9999999999.99"),
        ("-0.00", "0.00"),
        ("007.50", "7.50"),
        ("1.500", "1.50"),
    ],
)
def test_an_amount_is_exact_and_has_two_decimals(text: str, cents: str) -> None:
    """Every spelling of a number is the same amount, to the cent."""
    assert cents == str(parse_amount(text, "/amount"))
    assert cents == str(parse_amount(Decimal(text), "/amount"))


@pytest.mark.parametrize(
    "value",
    [
        "",
        " 1",
        "1 ",
        "NaN",
        "Infinity",
        "-1",
        "0.001",
        "1e-3",
        "10000000000",
        "1e400",
        "1e999999999",
        "0x10",
        "1_000",
        "٣",
        "1.",
        ".5",
        "0" * 65,
        True,
        None,
        1.5,
        [],
        {},
        Decimal("NaN"),
    ],
)
def test_what_is_no_amount_is_refused_by_its_pointer(value: object) -> None:
    """The error names the field."""
    with pytest.raises(InvalidError) as caught:
        parse_amount(value, "/orders/3/amount")
    assert caught.value.violations[0].pointer == "/orders/3/amount"


@pytest.mark.parametrize(
    "value",
    ["", "   ", "x" * 201, "a\x00b", "a\nb", "\ud800", "a\x7fb", "a\u2028b", "x\x85x", 5, None],
)
def test_what_is_no_product_name_is_refused(value: object) -> None:
    """Nothing that a store cannot hold or a log line could be forged with."""
    with pytest.raises(InvalidError):
        parse_name(value, "/product_name")


def test_a_name_is_trimmed_before_its_length_counts() -> None:
    """White space around it is not part of the name."""
    assert parse_name("  " + "x" * 200 + "\t", "") == "x" * 200


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("Cre\u0300me Bru\u0302le\u0301e", "Cr\u00e8me Br\u00fbl\u00e9e"),
        ("\u1100\u1161", "\uac00"),  # Hangul, in letters and as a syllable
        ("\u212b", "\u00c5"),  # the sign of angstrom is the letter
        ("q\u0307\u0323", "q\u0323\u0307"),  # marks in their order
        ("\ufeffTea\u200b \u2060", "Tea"),
        ("\u05e9\u05dc\u05d5\u05dd 5\u200e", "\u05e9\u05dc\u05d5\u05dd 5\u200e"),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),
        (
            "\U0001f468\u200d\U0001f469\u200d\U0001f467",
            "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        ),
        ("e\u0301" * 200, "\u00e9" * 200),
        ("\ufb2c" * 66, "\u05e9\u05bc\u05c1" * 66),  # the composed form may be the longer one
        ("\ue000", "\ue000"),  # private use: somebody's icon
        ("\U0001fae9", "\U0001fae9"),  # newer than some tables of Unicode
    ],
)
def test_a_name_is_stored_in_one_form(given: str, name: str) -> None:
    """Composed, without blanks around it; joiners and marks of direction inside stay."""
    assert name == parse_name(given, "")
    assert name == parse_name(name, "") == stored_name(name, "")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *[
            (name, "visible")
            for name in (
                *("\u2800", "\u3164", "\u200d", "\u115f\u1160", "\ufe0f", "\u00ad\u034f", "\uffa0"),
                *("\u180e", "\U000e0041", "\u2800 \u200d", "\u200e\u061c", "\u2061"),
            )
        ],
        *[(name, "empty") for name in ("\u200b", "\ufeff \u2060", "\u3000", "\u00a0\u200b\u2003")],
        *[
            (name, "direction")
            for name in ("\u202eRTL", "a\u2066b\u2069", "\u202c", "x\u202a", "5 \u2068k\u2069")
        ],
        *[(name, "U+FFFE") for name in ("\ufffe", "Tea\uffff", "\ufffeTea", "T\ufdd0a\ufdef")],
        ("\ufb2c" * 67, "at most 200"),
        ("e\u0301" * 201, "at most 200"),
        ("x" + "\u0301" * 31, "marks"),
        ("\u0345\u0301" * 399 + "x", "marks"),
        ("\u00e9" * 10_000, "at most 200"),
    ],
)
def test_a_name_that_deceives_is_refused(name: str, reason: str) -> None:
    """What nobody sees, what turns round its neighbours, and what hides behind its length."""
    with pytest.raises(InvalidError) as caught:
        parse_name(name, "/product_name")
    assert reason in caught.value.violations[0].detail


@given(st.text())
def test_any_name_taken_is_composed_and_can_be_stored(text: str) -> None:
    """What the edge takes, it takes again unchanged, and every store takes it as it is."""
    try:
        name = parse_name(text, "")
    except InvalidError:
        return
    assert unicodedata.is_normalized("NFC", name)
    assert name == parse_name(name, "") == stored_name(name, "")


@pytest.mark.parametrize(
    "name", ["Cre\u0300me", "\u3164", "\u202eRTL", "\ufeffTea", "x" + "\u0301" * 99]
)
def test_what_an_older_version_stored_stays_readable(name: str) -> None:
    """Its bytes and its form are those that its clients were answered with."""
    now = datetime.now(UTC)
    order = Order(new_id(), name, Decimal("1.00"), now)
    accepted = AcceptedOrder(order, now, order.id)
    body = codec.encode_order(order)
    assert (
        codec.decode_entry(codec.encode_entry(EntryState.DIRTY, accepted, body)).accepted
        == accepted
    )
    assert codec.decode_message(codec.encode_message([[(accepted, body)]])).orders == [accepted]


@pytest.mark.parametrize(
    ("stored", "given"),
    [
        ("Cre\u0300me", "Cr\u00e8me"),
        ("\u1100\u1161", "\uac00"),
        ("\ufeffTea", "Tea"),
        ("q\u0307\u0323", "q\u0323\u0307"),
    ],
)
def test_a_retry_in_another_form_is_the_same_order(stored: str, given: str) -> None:
    """Also where the first attempt was stored by a version that kept every form."""
    now = datetime.now(UTC)
    one = Order(new_id(), stored, Decimal("1.00"), now)
    two = Order(one.id, parse_name(given, ""), Decimal("1.00"), now)
    assert two.same_content(one, created_at_given=False)
    assert one.same_content(two, created_at_given=False)
    other = Order(one.id, parse_name(given, "") + "x", Decimal("1.00"), now)
    assert not other.same_content(one, created_at_given=False)


def test_a_derived_id_depends_on_every_part_and_is_a_uuid_8() -> None:
    """The same key is the same id; another client, key or position is another."""
    ids = [
        derived_id("", "k"),
        derived_id("c", "k"),
        derived_id("", "k", 0),
        derived_id("", "k", 1),
        derived_id("", "k1"),
        derived_id("c", "", 0),
    ]
    assert len(set(ids)) == len(ids)
    assert all(one.version == 8 and one.variant == "specified in RFC 4122" for one in ids)
    assert derived_id("c", "k", 1) == derived_id("c", "k", 1)


def test_new_ids_are_uuid_7_in_the_order_of_their_making() -> None:
    """Time-ordered keys keep the primary key's index hot."""
    ids = [new_id() for _ in range(1000)]
    assert sorted(ids) == ids
    assert {7} == {one.version for one in ids}


def test_moments_that_come_again_give_other_ids() -> None:
    """A process that starts after its machine's clock went back knows nothing of the ids before.

    One that runs on keeps the later time instead, so its ids stay in order.
    """
    made = [uuid7(nanoseconds=at) for at in (0, 1, 0, 1_000_000) for _ in range(10_000)]
    assert len(set(made)) == len(made)


@given(MOMENTS)
def test_microseconds_are_exact(moment: datetime) -> None:
    """No float is on the way."""
    assert moment == from_micros(to_micros(moment))


@given(ACCEPTED, st.sampled_from(EntryState))
def test_an_entry_comes_back_as_it_was(accepted: AcceptedOrder, state: EntryState) -> None:
    """Decode is the inverse of encode; state and body can be had without decoding."""
    body = codec.encode_order(accepted.order)
    raw = codec.encode_entry(state, accepted, body)
    assert (state, accepted, body) == codec.decode_entry(raw)
    assert (state, body) == (codec.entry_state(raw), codec.entry_body(raw))


@given(st.lists(ACCEPTED, max_size=5))
def test_a_message_comes_back_as_it_was(batch: list[AcceptedOrder]) -> None:
    """Decode is the inverse of encode, in order."""
    body = codec.encode_message([[(one, codec.encode_order(one.order))] for one in batch])
    assert (batch, []) == codec.decode_message(body)


@given(st.binary())
def test_any_bytes_are_a_message_or_a_reject(body: bytes) -> None:
    """Whatever is on the queue, decoding never raises."""
    decoded = codec.decode_message(body)
    assert decoded.orders or decoded.rejects or body.strip() == b"[]"


@pytest.mark.parametrize(
    "body", [b"[" * 5_000, b'[{"order":' + b"[" * 5_000], ids=["plain", "inside"]
)
def test_brackets_in_brackets_are_a_reject(body: bytes) -> None:
    """What is too deep to be read kills no worker."""
    assert [body] == [reject.payload for reject in codec.decode_message(body).rejects]


@given(st.binary())
def test_any_bytes_are_an_entry_or_poison(raw: bytes) -> None:
    """Whatever is in the cache, decoding raises nothing else."""
    try:
        codec.decode_entry(raw)
    except PoisonError:
        return


def _bulk(size: int) -> list[AcceptedOrder]:
    now = datetime.now(UTC)
    unit_id = UUID(int=99)
    orders = [Order(new_id(), f"p{i}", Decimal("1.00"), now) for i in range(size)]
    return [AcceptedOrder(order, now, unit_id, size) for order in orders]


def _item(accepted: AcceptedOrder) -> bytes:
    return codec.encode_item(accepted, codec.encode_order(accepted.order))


def test_one_unreadable_item_leaves_its_neighbours_whole() -> None:
    """The bad one is rejected with its bytes, its reason and its id."""
    now = datetime.now(UTC)
    good = [AcceptedOrder(o := Order(new_id(), "x", Decimal("1.00"), now), now, o.id) for _ in "ab"]
    bad = _item(good[0]).replace(b'"amount":1.00', b'"amount":-1.00')
    decoded = codec.decode_message(
        b"[" + _item(good[0]) + b"," + bad + b"," + _item(good[1]) + b"]"
    )
    assert good == decoded.orders
    assert [bad] == [reject.payload for reject in decoded.rejects]
    assert decoded.rejects[0].order_id == good[0].order.id
    assert "negative" in decoded.rejects[0].reason


def test_a_unit_with_a_missing_member_is_rejected_whole() -> None:
    """Two of three orders of a bulk are no bulk; a complete unit beside it passes."""
    now = datetime.now(UTC)
    single = AcceptedOrder(o := Order(new_id(), "x", Decimal("1.00"), now), now, o.id)
    members = _bulk(3)
    message = b"[" + b",".join(map(_item, [*members[:2], single])) + b"]"
    decoded = codec.decode_message(message)
    assert [single] == decoded.orders
    assert {m.order.id for m in members[:2]} == {r.order_id for r in decoded.rejects}
    assert {members[0].unit_id} == {r.unit_id for r in decoded.rejects}


def test_a_unit_that_came_twice_is_two_whole_units() -> None:
    """Retries that meet in one message are no poison, nor is another bulk under the same key."""
    bulk, other = _bulk(3), _bulk(2)
    single = AcceptedOrder(bulk[0].order, bulk[0].accepted_at, bulk[0].order.id)
    batch = [*bulk, single, *bulk, *other, single]
    decoded = codec.decode_message(b"[" + b",".join(map(_item, batch)) + b"]")
    assert (batch, []) == (decoded.orders, decoded.rejects)
    assert [bulk, [single], bulk, other, [single]] == whole_units(decoded.orders)


def test_same_content_looks_at_created_at_only_if_it_was_given() -> None:
    """A retry of a keyed order is made at another moment and is the same order."""
    now = datetime.now(UTC)
    one = Order(new_id(), "x", Decimal("1.00"), now)
    later = Order(one.id, "x", Decimal("1.00"), now + timedelta(seconds=1))
    assert one.same_content(later, created_at_given=False)
    assert not one.same_content(later, created_at_given=True)
