"""The maildrop of one session: numbers, marks, totals, LAST (RFC 1939, RFC 1081)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popper.errors import Refused
from popper.maildrop import Maildrop
from popper.storage.memory import Memory

many = settings(deadline=None, max_examples=100, database=None, derandomize=True)


def mailbox(*texts):
    return b"".join(b"From joe@example.org Thu Nov 24 18:22:48 1996\n" + text + b"\n" for text in texts)


SIX = [b"Subject: %d\n\n" % number + b"x" * 10 * number + b"\n" for number in range(1, 7)]


@pytest.fixture
def drop():
    return Maildrop("joe", Memory(mailbox(*SIX)))


def refusal(call, *arguments):
    with pytest.raises(Refused) as caught:
        call(*arguments)
    return caught.value.text


def test_an_empty_maildrop():
    drop = Maildrop("joe", Memory())
    assert (drop.count, drop.octets, drop.last, list(drop.listed()), drop.unique_ids()) == (0, 0, 0, [], [])
    assert refusal(drop.entry, 1) == "Message 1 does not exist."
    drop.update()


def test_totals_are_the_sum_of_the_listing(drop):
    """1939.33: what STAT says is what LIST adds up to."""
    assert drop.count == 6
    assert drop.octets == sum(entry.octets for _, entry in drop.listed()) == sum(len(t) + t.count(b"\n") for t in SIX)


@pytest.mark.parametrize("number", [0, 7, 4294967297, 2**63, -1, -6])
def test_numbers_that_are_no_message(drop, number):
    """1939.28, 1939.76: no number wraps, and none counts from the end."""
    for call in (drop.entry, drop.delete, drop.unique_id):
        assert refusal(call, number) == f"Message {number} does not exist."
    assert drop.count == 6


def test_a_deleted_message_is_refused_in_the_words_of_each_command(drop):
    """1939.39, 1939.40, 1939.59."""
    drop.delete(2)
    assert refusal(drop.entry, 2) == "Message 2 has been deleted."
    assert refusal(drop.delete, 2) == "Message 2 has already been deleted."
    assert refusal(drop.unique_id, 2) == "Message 2 has been marked for deletion."


def test_deleting_marks_and_numbers_do_not_move(drop):
    """1939.24, 1939.38, 1939.78."""
    before = drop.octets
    drop.delete(2)
    drop.delete(6)
    assert [number for number, _ in drop.listed()] == [1, 3, 4, 5]
    assert drop.count == 4
    assert drop.octets == before - drop.entries[1].octets - drop.entries[5].octets
    assert drop.store.octets == mailbox(*SIX)


def test_reset_takes_every_mark_back(drop):
    """1939.43."""
    whole = drop.octets
    for number in range(1, 7):
        drop.delete(number)
    assert (drop.count, drop.octets) == (0, 0)
    drop.reset()
    assert (drop.count, drop.octets, len(list(drop.listed()))) == (6, whole, 6)
    drop.update()
    assert drop.store.octets == mailbox(*SIX)


def test_update_deletes_what_is_marked_and_nothing_else(drop):
    """1939.44, 1939.47."""
    drop.delete(5)
    drop.delete(1)
    drop.update()
    assert drop.store.octets == mailbox(*(SIX[i] for i in (1, 2, 3, 5)))


def test_update_without_marks_leaves_the_store_alone(drop):
    drop.store.commit = None                 # calling it would fail
    drop.update()


def test_unique_ids_are_asked_for_once(drop):
    first = drop.unique_ids()
    drop.store.unique_ids = None
    assert drop.unique_ids() is first and drop.unique_id(3) == first[2]


def test_last_is_the_highest_message_asked_for(drop):
    """1081.01."""
    assert drop.last == 0
    drop.access(4)
    drop.access(2)
    assert drop.last == 4
    drop.delete(5)
    assert drop.last == 5
    drop.reset()
    assert drop.last == 0


def test_last_begins_at_the_highest_message_marked_read_and_returns_there():
    """1081.01, 1081.02: before anything is asked for, and after RSET, a stored Status: counts."""
    drop = Maildrop("joe", Memory(mailbox(b"Status: RO\n\na\n", b"A: b\nstatus: R\n\nb\n", b"Status: O\n\nc\n")))
    assert drop.last == 2
    drop.access(3)
    assert drop.last == 3
    drop.reset()
    assert drop.last == 2


def test_a_refused_message_does_not_move_last(drop):
    refusal(drop.delete, 99)
    assert drop.last == 0


class Unreadable:
    """A store whose scan fails."""

    def scan(self):
        raise Refused("no")


def test_a_store_that_refuses_is_passed_on():
    with pytest.raises(Refused):
        Maildrop("joe", Unreadable())


@many
@given(st.lists(st.tuples(st.sampled_from(["delete", "reset", "access"]), st.integers(-1, 8)), max_size=30))
def test_totals_hold_after_any_commands(commands):
    """1939.24: neither total ever counts a message that is marked."""
    drop = Maildrop("joe", Memory(mailbox(*SIX)))
    marked, read = set(), 0
    for command, number in commands:
        if command == "reset":
            drop.reset()
            marked, read = set(), 0
        elif command == "access":
            if 1 <= number <= 6:
                drop.access(number)
                read = max(read, number)
        elif 1 <= number <= 6 and number not in marked:
            drop.delete(number)
            marked.add(number)
            read = max(read, number)
        else:
            refusal(drop.delete, number)
    left = [number for number in range(1, 7) if number not in marked]
    assert [number for number, _ in drop.listed()] == left
    assert (drop.count, drop.last) == (len(left), read)
    assert drop.octets == sum(drop.entries[number - 1].octets for number in left)
