"""Rows that wait on disk for their names."""

import datetime

from hypothesis import given
from hypothesis import strategies as st

from popper.admin.kept import Kept


@given(st.lists(st.floats(allow_nan=False)))
def test_they_come_in_the_order_of_their_places_and_else_as_they_came(places):
    with Kept() as rows:
        for number, place in enumerate(places):
            rows.add(place, {"number": number})
        assert [row["number"] for row in rows] == sorted(range(len(places)), key=places.__getitem__)


def test_they_come_as_they_were_as_often_as_they_are_wanted():
    row = {"when": datetime.datetime(2026, 11, 24, 18, 22, 48, 123456), "text": "gr\u00fc\u00df \udcff\x00",
           "none": None, "waits": {"client": 0.125}, "is": True, "many": 1 << 70}
    with Kept() as rows:
        rows.add(1, row)
        assert list(rows) == list(rows) == [row]


def test_what_is_not_known_before_the_last_is_put_in_when_they_are_given_out():
    names = {}
    with Kept(lambda row: {**row, "name": names[row["mark"]]}) as rows:
        for number, mark in enumerate("aba"):
            rows.add(number, {"mark": mark})
        names.update(a="a twice", b="b")
        assert [row["name"] for row in rows] == ["a twice", "b", "a twice"]


def test_two_may_go_through_them_at_once():
    with Kept() as rows:
        for number in range(1000):
            rows.add(-number, {"number": number})
        assert all(one == other for one, other in zip(rows, rows)) and len(list(rows)) == 1000
