"""The ledger sees what is wrong, and nothing else; letters are what their names say."""

import itertools

import pytest

from ledger import BULLETIN, OLD, Fault, Ledger
from ledger_mail import Shape, is_whole, letter, name_in, piece, quoted, wire


class Story:
    """Deliveries and sessions of one user, one after the other unless told otherwise."""

    def __init__(self):
        self.ledger = Ledger(["joe"], itertools.count().__next__)

    def deliver(self, *names, kind="mail", over=True):
        for name in names:
            entry = self.ledger.begin(name, "joe", "hand", name.encode(), kind)
            if over:
                self.ledger.finish(entry)
        return entry

    def session(self, *names):
        """One that finds these, if any are given."""
        visit = self.ledger.visit("joe")
        self.ledger.opened(visit)
        if names:
            self.find(visit, *names)
        return visit

    def find(self, visit, *names):
        self.ledger.found(visit, [name for name in names if name])

    def quit(self, visit, *names, answer=True):
        deletion = self.ledger.asked(visit, names)
        self.ledger.answered(deletion, answer)
        return deletion

    def delete(self, *names, answer=True):
        """A session that finds three letters and wants some gone."""
        return self.quit(self.session("a", "b", "c"), *names, answer=answer)


NOTHING = ""


@pytest.fixture
def story():
    """Three letters were delivered."""
    one = Story()
    one.deliver("a", "b", "c")
    return one


def complaint(call, *arguments):
    with pytest.raises(Fault) as fault:
        call(*arguments)
    return str(fault.value)


@pytest.mark.parametrize("found, said", [
    (("a", "c"), "b is lost"), ((NOTHING,), "a is lost"), (("a", "b", "c", "b"), "twice in the maildrop: {'b'}")])
def test_lost_and_doubled(story, found, said):
    assert said in complaint(story.session, *found)


def test_a_fault_tells_the_history(story):
    text = complaint(story.session, "a", "b")
    assert "letter c of joe, mail" in text and "delivery by hand begins" in text and "delivered" in text
    assert "session 1 of joe" in text and "finds 2: a b" in text


def test_nobody_delivered_it(story):
    assert "nobody delivered" in complaint(story.ledger.identified, story.session(), "uid", "d")


def test_a_unique_id_is_of_one_letter_for_ever(story):
    story.ledger.identified(story.session(), "uid", "a")
    assert "the unique-id of a is now that of b" in complaint(story.ledger.identified, story.session(), "uid", "b")


def test_other_octets(story):
    visit = story.session("a", "b", "c")
    story.ledger.fetched(visit, "a", b"a")
    assert "a is not what was delivered" in complaint(story.ledger.fetched, visit, "a", b"b")


def test_another_size(story):
    visit = story.session()
    story.ledger.found(visit, ["a", "b", "c"], [1, 1, 1])
    assert "b is said to have 2 octets" in complaint(story.ledger.found, visit, ["a", "b", "c"], [1, 2, 1])


def test_deleted_is_deleted(story):
    story.delete("b")
    story.session("a", "c")
    assert "b is back" in complaint(story.session, "a", "b", "c")


def test_deleted_but_still_there(story):
    story.delete("b", "c")
    assert "b is back" in complaint(story.session, "a", "b", "c")


def test_refused_is_not_deleted(story):
    story.delete("b", answer=False)
    story.session("a", "b", "c")
    assert "b is lost" in complaint(story.session, "a", "c")


@pytest.mark.parametrize("found", [("a", "c"), ("b", "c")])
def test_not_answered_and_done_by_half(story, found):
    story.delete("a", "b", answer=None)
    assert "by half" in complaint(story.session, *found)


@pytest.mark.parametrize("found, later, said", [
    (("c",), ("a", "b", "c"), "a is back"), (("a", "b", "c"), ("c",), "a is lost"), (("c",), ("b", "c"), "b is back")])
def test_not_answered_and_what_is_found_is_how_it_stays(story, found, later, said):
    story.delete("a", "b", answer=None)
    story.session(*found)
    story.session(*found)
    assert said in complaint(story.session, *later)


def test_answered_after_somebody_else_found_them(story):
    visit = story.session("a", "b", "c")
    deletion = story.ledger.asked(visit, ["a"])
    story.session("a", "b", "c")
    assert "answered +OK, but its letters are kept" in complaint(story.ledger.answered, deletion, True)


def test_without_quit_all_stays(story):
    story.ledger.closed(story.session("a", "b", "c"))
    assert "a is lost" in complaint(story.session, "b", "c")


@pytest.mark.parametrize("found", [("a", "c", "b"), ("c", "a", "b"), ("b", "a", "c")])
def test_the_order_stays(story, found):
    story.session("a", "b", "c")
    assert "the order has changed" in complaint(story.session, *found)


@pytest.mark.parametrize("kind, found", [
    ("mail", "dabc"), ("mail", "abdc"), (OLD, "abcd"), (OLD, "adbc"), (BULLETIN, "dabc")])
def test_new_letters_have_their_place(story, kind, found):
    story.session("a", "b", "c")
    story.deliver("d", kind=kind)
    assert "d is new, and in the wrong place" in complaint(story.session, *found)


def test_two_at_once(story):
    first = story.session("a", "b", "c")
    second = story.session()
    assert first.rival is second
    assert "at once" in complaint(story.ledger.served, first, first.rival)
    first.unlocked = True
    story.ledger.served(first, first.rival)
    first.unlocked, first.empty = False, True
    story.ledger.served(first, first.rival)


def test_one_after_the_other(story):
    first = story.session("a", "b", "c")
    story.quit(first)
    story.session("a", "b", "c")
    assert first.rival is None


def test_never_found(story):
    story.session("a", "b", "c")
    story.deliver("d", kind=BULLETIN, over=False)
    assert "d was never found" in complaint(story.ledger.close)


def test_in_doubt_at_the_end(story):
    story.delete("a", answer=None)
    assert "no known end" in complaint(story.ledger.close)


# -- what is right ---------------------------------------------------------------------------------------------------

def test_a_delivery_under_way(story):
    entry = story.deliver("d", over=False)
    story.session("a", "b", "c")
    story.session("a", "b", "c", "d")
    story.ledger.finish(entry)
    assert "d is lost" in complaint(story.session, "a", "b", "c")


def test_a_delivery_that_ended_while_the_session_was_opened(story):
    entry = story.deliver("d", over=False)
    visit = story.ledger.visit("joe")
    story.ledger.finish(entry)
    story.ledger.opened(visit)
    story.find(visit, "a", "b", "c")


def test_a_quit_under_way(story):
    visit = story.session("a", "b", "c")
    deletion = story.ledger.asked(visit, ["a", "b"])
    story.session("c")
    story.ledger.answered(deletion, True)
    story.session("c")
    story.ledger.close()


def test_one_that_was_killed_and_heard_late(story):
    """It was opened before the others came, but its client is slow."""
    slow = story.session()
    story.delete("a")
    story.deliver("d")
    story.session("b", "c", "d")
    story.find(slow, "a", "b", "c")
    story.session("b", "c", "d")


def test_one_that_asked_earlier_but_came_later(story):
    """So what the one before it wanted is settled, and what itself deletes is not part of that."""
    waiting = story.ledger.visit("joe")
    story.delete("a", "b", answer=None)
    story.ledger.opened(waiting)
    story.find(waiting, "a", "b", "c")
    story.quit(waiting, "b")
    story.session("a", "c")
    story.ledger.close()


def test_a_session_without_locks_settles_nothing_before_it_is_over(story):
    visit = story.session("a", "b", "c")
    visit.unlocked = True
    deletion = story.ledger.asked(visit, ["a"])
    story.session("a", "b", "c")
    story.ledger.answered(deletion, True)
    story.session("b", "c")


def test_one_without_locks_that_is_overtaken(story):
    """The next one came in before it was over, and deleted one of the two that it had wanted gone in vain."""
    visit = story.session("a", "b", "c")
    visit.unlocked = True
    deletion = story.ledger.asked(visit, ["a", "b"])
    story.delete("a")
    story.ledger.answered(deletion, None)
    story.session("b", "c")
    assert "b is lost" in complaint(story.session, "c")


def test_a_bulletin_is_there_from_some_login_on(story):
    story.deliver("d", kind=BULLETIN, over=False)
    story.session("a", "b", "c")
    story.session("a", "b", "c", "d")
    assert "d is lost" in complaint(story.session, "a", "b", "c")


def test_old_mail_in_front(story):
    story.session("a", "b", "c")
    story.deliver("d", kind=OLD)
    story.session("d", "a", "b", "c")
    story.ledger.close()


# -- letters ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("tame", [False, True])
@pytest.mark.parametrize("crlf", [False, True])
@pytest.mark.parametrize("octets", [0, 40, 5000, 200_000])
def test_a_letter_knows_its_name_and_whether_it_is_whole(octets, crlf, tame):
    for number in range(30 if octets < 10_000 else 3):
        text = letter(f"s.{number}", octets, crlf, tame)
        crossing = wire(quoted(text) if tame else text)
        assert name_in(crossing) == f"s.{number}"
        assert is_whole(crossing)
        assert text == letter(f"s.{number}", octets, crlf, tame)
        assert not octets or not is_whole(crossing[:-3] + bytes([crossing[-3] ^ 1]) + crossing[-2:])
        assert piece(f"s.{number}", text).count(b"\r\n" if crlf else b"\n") >= text.count(b"\n") + 2


def test_sizes_are_spread_over_powers():
    class Half:
        @staticmethod
        def random():
            return 0.5
    assert Shape((100, 10_000)).size(Half) == 1000
