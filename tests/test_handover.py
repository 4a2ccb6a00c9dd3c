"""Messages between processes: any octets come out as they went in, and nonsense is ValueError and nothing else."""

import math
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from popper.errors import AUTH, Refused
from popper.handover import (
    LARGEST, LEVELS, Login, needs_name, pack, pack_lines, printable, refused, unpack, unpack_lines)
from popper.journal import LEVELS as JOURNALS
from popper.journal import NAME

quick = settings(deadline=None, max_examples=300, database=None, derandomize=True)
LINES = st.lists(st.tuples(st.floats(0, 1e10).map(lambda seconds: round(seconds, 3)), st.sampled_from(LEVELS),
                           st.text(st.characters(exclude_categories=("C", "Z")) | st.sampled_from(" " + NAME))))


def login(**changed):
    values = dict(number=7, user=b"mrose", password=b"tanstaaf", rest=b"STAT\r\n", received=12, sent=40, seconds=1.5,
                  mistakes=1, mistake="-ERR No.", lines=[(1e9, 5, "a line")])
    return Login(*{**values, **changed}.values())


def values(one):
    return [getattr(one, name) for name in Login.__slots__]


# -- fields ----------------------------------------------------------------------------------------------------------

@quick
@given(st.binary(min_size=1, max_size=1), st.lists(st.binary(max_size=300)))
def test_any_fields_come_out_as_they_went_in(letter, fields):
    octets = pack(letter, *fields)
    assert octets[:1] == letter and unpack(octets) == fields


@quick
@given(st.lists(st.binary(max_size=9), min_size=1), st.data())
def test_a_message_that_is_cut_short_is_none(fields, data):
    octets = pack(b"L", *fields)
    whole = [len(pack(b"L", *fields[:count])) for count in range(len(fields) + 1)]
    end = data.draw(st.sampled_from([end for end in range(1, len(octets)) if end not in whole]))
    with pytest.raises(ValueError):
        unpack(octets[:end])


READERS = (unpack, unpack_lines, Login.unpacked, printable)


@settings(quick, max_examples=1000)
@given(st.sampled_from(READERS), st.binary(max_size=200) |
       st.lists(st.binary(max_size=20)).map(lambda fields: pack(b"L", *fields)))
@example(unpack, b"")
@example(unpack, b"L\xff\xff\xff\xff")
@example(unpack_lines, pack(b"", b"nan", b"5", b""))
@example(unpack_lines, pack(b"", b"1", b"9" * 5000, b""))
def test_any_garbage_is_a_value_error_and_nothing_else(reader, octets):
    try:
        reader(octets)
    except ValueError:
        pass


NUMBERS = [b"", b"x", b"1.5", b"9" * 5000, b"nan", b"inf", b"-1", b"1e400", b"\xff", b"0x1"]


@settings(quick, max_examples=1000)
@given(st.lists(st.sampled_from([*NUMBERS, b"5", b"1", pack_lines([(1.0, 5, "x")])]), min_size=11, max_size=11))
def test_a_login_of_odd_numbers_is_one_or_a_value_error(fields):
    try:
        found = values(Login.unpacked(pack(b"L", *fields)))
    except ValueError:
        return
    assert [type(value) for value in found] == list(Login.FORMS)


# -- lines -----------------------------------------------------------------------------------------------------------

@quick
@given(LINES)
def test_any_lines_come_out_as_they_went_in(lines):
    assert unpack_lines(pack_lines(lines)) == lines


def test_the_levels_are_those_that_a_journal_has():
    assert set(LEVELS) == set(JOURNALS)


@pytest.mark.parametrize("seconds, level", [(b"nan", b"5"), (b"inf", b"5"), (b"-1", b"5"), (b"1e300", b"5"),
                                            (b"1", b"0"),
                                            (b"1", b"3"), (b"1", b"8"), (b"1", b"-5"),
                                            (b"1", b"1" * 40), (b"1", b"133")])
def test_a_line_that_no_log_could_take_is_none(seconds, level):
    with pytest.raises(ValueError):
        unpack_lines(pack(b"", seconds, level, b"text"))


def test_what_would_forge_a_line_is_shown_and_does_not():
    (_, _, text), = unpack_lines(pack(b"", b"1", b"5", b"one\nNov 24 popper[1]: two\r\t\x1b[2J\x00\xff\xc2\x85"))
    assert text == "one?Nov 24 popper[1]: two???[2J\x00\ufffd?"


def test_the_last_lines_are_left_out_when_they_are_too_many():
    lines = [(float(count), 7, "x" * 1000) for count in range(1000)]
    octets = pack_lines(lines)
    found = unpack_lines(octets)
    assert len(octets) <= LARGEST // 2 and len(octets) > LARGEST // 2 - 2000
    assert found == lines[:len(found)]


def test_one_line_that_is_too_long_is_left_out():
    assert pack_lines([(1.0, 5, "x" * LARGEST)]) == b""


@pytest.mark.parametrize("lines, needed", [([], False), ([(1.0, 5, "a"), (2.0, 5, "b")], False),
                                           ([(1.0, 5, "a"), (2.0, 5, f"from {NAME}")], True)])
def test_whether_a_name_is_needed(lines, needed):
    assert needs_name(lines) is needed


# -- logins ----------------------------------------------------------------------------------------------------------

@quick
@given(st.binary(max_size=1024), st.binary(max_size=1024), st.binary(max_size=20000),
       st.integers(0, 2**63), st.floats(0, 1e6), LINES)
def test_any_login_comes_out_as_it_went_in(user, password, rest, count, seconds, lines):
    one = login(number=count, user=user, password=password, rest=rest, received=count, sent=count,
                seconds=seconds, mistakes=count, lines=lines)
    assert values(Login.unpacked(one.packed())) == values(one)


def test_the_largest_login_there_can_be_is_a_message():
    """Words of a line, what one read may bring behind it, and lines for the log."""
    one = login(user=b"u" * 1024, password=b"p" * 1024, rest=b"r" * (16384 + 1024),
                lines=[(float(count), 7, "x" * 1000) for count in range(1000)])
    assert len(one.packed()) < LARGEST


@pytest.mark.parametrize("count", [0, 9, 11])
def test_a_login_with_too_few_fields_or_too_many_is_none(count):
    with pytest.raises(ValueError):
        Login.unpacked(pack(b"L", *[b"1"] * count))


def test_too_few_values_make_no_login():
    with pytest.raises(ValueError):
        Login(1, b"mrose")


def test_the_complaint_of_a_login_is_a_line_for_a_log():
    assert Login.unpacked(login(mistake="one\ntwo").packed()).mistake == "one?two"


def test_seconds_are_exact_enough():
    one = Login.unpacked(login(seconds=math.pi).packed())
    assert one.seconds == math.pi


@pytest.mark.parametrize("code, spent, late", [(AUTH, 0.5, "1.500"), (AUTH, 2.5, "0.000"), ("IN-USE", 0.5, "0.000"),
                                               ("SYS/TEMP", 0.0, "0.000")])
def test_only_wrong_passwords_are_answered_late_and_never_too_late(monkeypatch, code, spent, late):
    monkeypatch.setattr(time, "monotonic", lambda: 100.0 + spent)
    octets = refused(Refused("No.", code), 7, 100.0, 2)
    assert octets[:1] == b"A" and unpack(octets) == [b"7", late.encode(), code.encode(), b"No."]
