"""The table of sessions: slots that children share, and how many there may be."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popper.sessions import FORM, LOGIN, PAGE, Child, Sessions


def child(number=1, pid=0):
    one = Child(number, "mrose", b"mrose", "192.0.2.1", "client.example.org", 100.0)
    one.pid = pid
    return one


@pytest.fixture
def sessions():
    one = Sessions(3)
    yield one
    os.close(one.descriptor)


def seat(sessions, pid):
    one = child(pid)
    sessions.reserve(one)
    sessions.add(one, pid)
    return one


def test_a_child_that_was_forked_is_in_the_table_until_it_is_dropped(sessions):
    one = seat(sessions, 4711)
    assert len(sessions) == 1 and sessions.children == {4711: one} and one.pid == 4711
    assert sessions.slot(one).read() == (LOGIN, 0, 0, "", "")
    sessions.drop(one)
    assert len(sessions) == 0 and sessions.children == {}


def test_what_a_child_tells_is_read_by_its_parent(sessions):
    one, other = seat(sessions, 1), seat(sessions, 2)
    forked = os.fork()
    if not forked:
        sessions.own(one).write("TRANSACTION", 2**40, 17, "AUTH", "No.")
        os._exit(0)
    assert os.waitpid(forked, 0)[1] == 0
    assert sessions.slot(one).read() == ("TRANSACTION", 2**40, 17, "AUTH", "No.")
    assert sessions.slot(other).read() == (LOGIN, 0, 0, "", "")


def test_a_child_has_no_slot_but_its_own(sessions):
    """Who reads what strangers say, or is a user's, could else say what came of the logins of others."""
    one = seat(sessions, 1)
    reader, writer = os.pipe()
    forked = os.fork()
    if not forked:
        own = sessions.own(one)              # noqa: F841  as long as it is held
        with open("/proc/self/maps") as maps:
            found = [line.split()[0] for line in maps if "popper-sessions" in line]
        os.write(writer, " ".join(found).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        start, end = (int(each, 16) for each in pipe.read().split("-"))      # ValueError: there is more than one
    assert os.waitpid(forked, 0)[1] == 0 and end - start == PAGE


def test_a_slot_that_is_used_again_has_forgotten_what_it_knew(sessions):
    one = seat(sessions, 1)
    sessions.slot(one).write("UPDATE", 5, 6, "SYS/TEMP", "x" * 250)
    sessions.drop(one)
    for pid in (2, 3, 4):
        assert sessions.slot(seat(sessions, pid)).read() == (LOGIN, 0, 0, "", "")


def test_a_text_that_is_too_long_is_cut_and_one_that_is_not_ascii_is_shown(sessions):
    one, other = seat(sessions, 1), seat(sessions, 2)
    sessions.slot(one).write(LOGIN, 0, 0, "SYS/PERM", "x" * 1000)
    assert sessions.slot(one).read()[3:] == ("SYS/PERM", "x" * 256)
    assert sessions.slot(other).read() == (LOGIN, 0, 0, "", "")
    sessions.slot(one).write(LOGIN, 0, 0, "AUTH", "/var/mail/j\u00f6")
    assert sessions.slot(one).read()[3:] == ("AUTH", "/var/mail/j?")


@pytest.mark.parametrize("code", ["AUTH", "IN-USE", "SYS/TEMP", "SYS/PERM", "LOGIN-DELAY"])
def test_every_code_has_room(sessions, code):
    one = seat(sessions, 1)
    sessions.slot(one).write("TRANSACTION", 2**64 - 1, 2**64 - 1, code, "")
    assert sessions.slot(one).read() == ("TRANSACTION", 2**64 - 1, 2**64 - 1, code, "")


def test_it_is_full_when_there_are_as_many_as_there_may_be(sessions):
    sitting = [seat(sessions, pid) for pid in (1, 2, 3)]
    assert sessions.is_full() and len({each.slot for each in sitting}) == 3
    sessions.drop(sitting[1])
    assert not sessions.is_full()


def test_a_child_that_could_not_be_forked_gives_its_slot_back(sessions):
    for _ in range(10):
        one = child()
        sessions.reserve(one)
        sessions.drop(one)
    assert not sessions.is_full() and sorted(sessions.free) == [0, 1, 2]


def test_a_reload_that_allows_more(sessions):
    sitting = [seat(sessions, pid) for pid in (1, 2, 3)]
    sessions.slot(sitting[0]).write("UPDATE", 1, 2)
    sessions.allow(5)
    assert not sessions.is_full() and sessions.slot(sitting[0]).read()[0] == "UPDATE"
    slots = {each.slot for each in (*sitting, seat(sessions, 4), seat(sessions, 5))}
    assert len(slots) == 5 and sessions.is_full()


def test_a_reload_that_allows_fewer_ends_nobody(sessions):
    sitting = [seat(sessions, pid) for pid in (1, 2, 3)]
    sessions.allow(1)
    assert sessions.is_full() and len(sessions) == 3
    for each in sitting[:2]:
        sessions.drop(each)
    assert sessions.is_full()
    sessions.drop(sitting[2])
    assert not sessions.is_full()


def test_a_child_of_before_a_reload_still_tells(sessions):
    one = seat(sessions, 1)
    old = sessions.memory                    # what a child forked before has
    sessions.allow(50)
    FORM.pack_into(old, one.slot * PAGE, b"UPDATE", 7, 8, b"", b"")
    assert sessions.slot(one).read()[:3] == ("UPDATE", 7, 8)


def test_an_upgrade_takes_slots_and_children_over(sessions):
    one = seat(sessions, 4711)
    sessions.slot(one).write("TRANSACTION", 7, 8)
    after = Sessions(2, os.dup(sessions.descriptor))     # the new program's configuration allows fewer
    same = child(pid=4711)
    same.slot = one.slot
    after.take_over(same)
    assert after.children == {4711: same} and after.slot(same).read()[:3] == ("TRANSACTION", 7, 8)
    assert one.slot not in after.free and len(after.free) == 2
    seat(after, 4712)
    assert after.is_full()
    after.drop(same)
    assert one.slot in after.free
    os.close(after.descriptor)


@settings(deadline=None, max_examples=200, database=None, derandomize=True)
@given(st.lists(st.one_of(st.just("seat"), st.integers(0, 20), st.tuples(st.just("allow"), st.integers(1, 12)))))
def test_no_two_ever_have_one_slot(steps):
    sessions, sitting, pids = Sessions(4), [], iter(range(1, 1000))
    for step in steps:
        if step == "seat":
            if not sessions.is_full():
                sitting.append(seat(sessions, next(pids)))
        elif isinstance(step, tuple):
            sessions.allow(step[1])
        elif sitting:
            sessions.drop(sitting.pop(step % len(sitting)))
        slots = [each.slot for each in sitting]
        assert len(set(slots)) == len(slots) and not set(slots) & set(sessions.free)
        assert len(slots) + len(sessions.free) == sessions.slots and len(set(sessions.free)) == len(sessions.free)
        assert len(sessions) == len(slots)
    os.close(sessions.descriptor)
