"""Tables: aligned by what is seen, cut only where a width is given, and nothing in them moves a cursor."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popper.admin import table as tables
from popper.admin.table import cut, plain, shown, width


def lines(*arguments):
    return list(tables.lines(*arguments))


TITLES = {"user": "USER", "octets": "OCTETS", "from": "FROM"}


def test_texts_stand_left_and_numbers_right():
    rows = [{"user": "joe", "octets": 7, "from": "a"}, {"user": "elizabeth", "octets": 123456789, "from": "bb"}]
    assert lines(TITLES, rows) == ["USER          OCTETS  FROM",
                                   "joe                7  a",
                                   "elizabeth  123456789  bb"]


def test_what_is_missing_is_a_dash_and_makes_no_text_of_numbers():
    rows = [{"n": 1, "of": None}, {"of": 20}]
    assert lines({"n": "N", "of": "OCTETS"}, rows) == ["N  OCTETS", "1       -", "-      20"]


def test_a_table_without_rows_is_its_titles():
    assert lines(TITLES, []) == ["USER  OCTETS  FROM"]


@pytest.mark.parametrize("text, columns", [("joe", 3), ("日本", 4), ("e\u0301", 1), ("ｊoe", 4), ("", 0), ("é", 1)])
def test_width_is_what_is_seen(text, columns):
    assert width(text) == columns


def test_columns_are_aligned_by_what_is_seen():
    table = lines({"a": "A", "b": "B"}, [{"a": "日本", "b": "x"}, {"a": "e\u0301", "b": "x"}, {"a": "abcd", "b": "x"}])
    assert {width(line[:line.rindex(line[-1])]) for line in table} == {6}


@pytest.mark.parametrize("text, columns, left", [
    ("joseph", 6, "joseph"), ("joseph", 5, "jose…"), ("日本語", 6, "日本語"), ("日本語", 5, "日本…"),
    ("日本語", 4, "日…"), ("日本語", 2, "…"),
])
def test_cut(text, columns, left):
    assert cut(text, columns) == left


@given(st.lists(st.tuples(st.text(), st.text(), st.integers()), min_size=1), st.integers(24, 200))
def test_a_table_is_no_wider_than_it_may_be(rows, columns):
    table = lines({"a": "A", "b": "B", "n": "N"}, [dict(zip("abn", row)) for row in rows], columns)
    numbers = max(len(str(row[2])) for row in rows)
    assert max(map(width, table)) <= max(columns, 6 + 2 + 6 + 2 + numbers)
    assert len(table) == len(rows) + 1


def test_the_widest_text_gives_first_and_numbers_never():
    rows = [{"user": "joe", "octets": 1234567890123, "from": "x" * 60}]
    assert lines(TITLES, rows, 40) == ["USER         OCTETS  FROM",
                                       "joe   1234567890123  " + "x" * 18 + "…"]
    assert lines(TITLES, rows, 5)[1] == "joe   1234567890123  xxxxx…"


def test_another_mark():
    assert lines({"a": "A"}, [{"a": "x" * 20}], 10, "~")[1] == "x" * 9 + "~"


@pytest.mark.parametrize("value, cell", [
    (None, "-"), (True, "yes"), (False, "no"), (0, "0"), (1.5, "1.5"), ("", ""),
    (datetime.datetime(2026, 3, 4, 5, 6, 7, 8), "2026-03-04 05:06:07"),
    ("a\nb\x1b[31m\x7f\x9b", "a\\x0ab\\x1b[31m\\x7f\\x9b"), ("\u202e", "\\u202e"), ("\U000e0001", "\\U000e0001"),
    (b"n\xe9".decode("utf-8", "surrogateescape"), "n\\xe9"), ("jürgen 日本", "jürgen 日本"),
])
def test_a_value_as_a_cell(value, cell):
    assert shown(value) == cell


@given(st.text())
def test_plain_text_is_printable(text):
    assert plain(text).isprintable()
    assert (plain(text) == text) == text.isprintable()
