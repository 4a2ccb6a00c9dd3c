"""Counters: sessions once each, polls, what is left and how it grew, and bounds that hold against whoever guesses."""

import datetime

import pytest

from corpus import at
from popper.admin import sums
from popper.admin.logins import FAILED, LOGIN, PROBE, UPDATE, Event


@pytest.fixture
def found():
    return sums.Sums()


def login(user="joe", session="1", address="192.0.2.1"):
    return Event(LOGIN, user, address, session)


def update(user="joe", deleted=0, deleted_octets=0, left=0, left_octets=0, session="1", address="192.0.2.1"):
    return Event(UPDATE, user, address, session, 1, deleted, deleted_octets, left, left_octets)


def row(found, user="joe"):
    return next(each for each in found.user_rows() if each["user"] == user)


# -- sessions ----------------------------------------------------------------------------------------------------------

def test_a_login_and_its_stats_are_one_session(found):
    found.add(at(), login())
    found.add(at(seconds=5), update(left=1, left_octets=10))
    assert row(found)["sessions"] == found.totals()["sessions"] == 1


def test_stats_without_a_login_are_a_session(found):
    for number in range(3):
        found.add(at(hours=number), update(session="same"))
    assert row(found)["sessions"] == 3


def test_logins_without_stats_are_sessions(found):
    found.add(at(), login())
    found.add(at(), login(session="2"))
    found.add(at(hours=1), update(session="2"))
    assert row(found)["sessions"] == 2


def test_two_sessions_that_look_the_same_are_two(found):
    for event in login(), login(), update(), update(), update():
        found.add(at(), event)
    assert row(found)["sessions"] == 3


def test_an_end_that_cannot_be_brought_together_is_no_session_of_its_own(found):
    found.add(at(), login(session=""))
    found.add(at(), update(session=""))
    assert row(found)["sessions"] == 1


def test_of_logins_that_wait_for_their_end_so_many_are_kept(found, monkeypatch):
    monkeypatch.setattr(sums, "MOST_PENDING", 10)
    for number in range(30):
        found.add(at(), login(session=str(number)))
    assert len(found.pending) == 10
    found.add(at(), update(session="29"))
    assert row(found)["sessions"] == 30


# -- polls, and what is left -------------------------------------------------------------------------------------------

def test_a_poll_deletes_nothing_and_leaves_something(found):
    found.add(at(), update(left=5, left_octets=500))
    found.add(at(minutes=20), update(left=6, left_octets=600))
    found.add(at(hours=2), update(deleted=1, deleted_octets=100, left=5, left_octets=500))
    found.add(at(hours=3), update())
    joe = row(found)
    assert (joe["polls"], joe["polled_octets"], joe["polls_an_hour"]) == (2, 1100, 2.0)
    assert (joe["deleted"], joe["deleted_octets"], joe["left"], joe["left_octets"]) == (1, 100, 0, 0)


def test_polls_an_hour_are_of_the_hours_with_polls(found):
    for day in 0, 1:
        for minute in 0, 15, 30, 45, 70:
            found.add(at(days=day, minutes=minute), update(left=1, left_octets=1))
    assert row(found)["polls_an_hour"] == 2.5


def test_growth_is_from_the_first_day_that_tells_to_the_last(found):
    found.add(at(), login())
    found.add(at(days=1), update(left=1, left_octets=100))
    found.add(at(days=1, hours=1), update(left=2, left_octets=200))
    found.add(at(days=4), update(left=5, left_octets=800))
    joe = row(found)
    assert (joe["grown_octets"], joe["grown_days"], joe["grown_octets_a_day"]) == (600, 3, 200)
    found.add(at(), login("ann"))
    ann = row(found, "ann")
    assert (ann["grown_octets"], ann["left"], ann["left_octets"]) == (0, None, None)


def test_days_have_what_is_left_in_all_mailboxes(found):
    found.add(at(), update("joe", left=1, left_octets=100))
    found.add(at(), update("ann", left=2, left_octets=200))
    found.add(at(days=1), update("ann", left=5, left_octets=500))
    found.add(at(days=3), update("joe", deleted=1, deleted_octets=100))
    found.add(at(days=3), Event(FAILED, "eve", "192.0.2.66", "", 3))
    days = found.day_rows()
    assert [(day["day"], day["users"], day["sessions"], day["left"], day["left_octets"]) for day in days] == [
        (datetime.date(2026, 11, 16), 2, 2, 3, 300), (datetime.date(2026, 11, 17), 1, 1, 6, 600),
        (datetime.date(2026, 11, 19), 1, 1, 5, 500)]
    assert (days[2]["failures"], days[2]["deleted"], days[2]["addresses"]) == (3, 1, 2)
    assert found.totals()["left_octets"] == 500 and found.totals()["users"] == 2


def test_hours_of_days_of_the_clock_and_of_the_week(found):
    for day, hour in ((0, 0), (0, 0), (1, 0), (7, 0), (0, 14)):
        found.add(at(days=day, hours=hour), update(left=1, left_octets=10))
    assert [(each["day"].day, each["hour"], each["polls"]) for each in found.hour_rows()] == [
        (16, 9, 2), (16, 23, 1), (17, 9, 1), (23, 9, 1)]
    clock = found.clock_rows()
    assert len(clock) == 24 and (clock[9]["hour"], clock[9]["polls"], clock[23]["polls"]) == ("09", 4, 1)
    week = found.week()
    assert (week[0][9], week[0][23], week[1][9], sum(map(sum, week))) == (3, 1, 1, 5)
    assert found.week("sessions") == week


# -- failures ----------------------------------------------------------------------------------------------------------

def test_failures_and_probes_by_address(found):
    found.add(at(), Event(FAILED, "joe", "a", "", 3))
    found.add(at(hours=1), Event(FAILED, "ann", "a"))
    found.add(at(hours=2), Event(PROBE, "joe", "b"))
    rows = found.address_rows()
    assert [(each["address"], each["failures"], each["probes"], each["names"]) for each in rows] == [
        ("a", 4, 0, 2), ("b", 0, 1, 1)]
    assert rows[0]["last"] == at(hours=1)
    assert (row(found)["failures"], row(found)["probes"], row(found)["sessions"]) == (3, 1, 0)
    assert found.totals()["users"] == 0 and sums.by_users(found.user_rows()) == []


def test_names_and_addresses_of_guesses_are_bounded(found, monkeypatch):
    monkeypatch.setattr(sums, "MOST_STRANGERS", 20)
    monkeypatch.setattr(sums, "MOST_ADDRESSES", 20)
    monkeypatch.setattr(sums, "MOST_TRIED", 5)
    monkeypatch.setattr(sums, "MOST_DAILY", 30)
    found.add(at(), login())
    for number in range(50):
        found.add(at(), Event(FAILED, "often", "far"))
    for number in range(500):
        found.add(at(), Event(FAILED, f"guess{number}", f"address{number}"))
        assert len(found.users) <= 22 and len(found.addresses) <= 20 and len(found.visitors[at().toordinal()]) <= 30
    assert {"joe", "often"} <= found.users.keys() and found.forgotten
    assert found.address_rows()[0]["failures"] == 50 and len(found.addresses["far"].names) == 1
    assert found.totals()["failures"] == 550 and found.day_rows()[0]["failures"] == 550
    assert found.totals()["users"] == 1


def test_whoever_logs_in_at_last_is_no_stranger(found, monkeypatch):
    monkeypatch.setattr(sums, "MOST_STRANGERS", 4)
    for number in range(3):
        found.add(at(), Event(FAILED, f"user{number}", "a"))
        found.add(at(), login(f"user{number}"))
    assert found.strangers == 0 and found.totals()["users"] == 3
    for number in range(40):
        found.add(at(), Event(FAILED, f"guess{number}", "a"))
    assert {f"user{number}" for number in range(3)} <= found.users.keys() and len(found.users) <= 8
    assert row(found, "user0")["failures"] == 1


def test_names_tried_and_addresses_of_a_user_are_counted_up_to_a_bound(found, monkeypatch):
    monkeypatch.setattr(sums, "MOST_TRIED", 5)
    monkeypatch.setattr(sums, "MOST_OF_USER", 7)
    for number in range(20):
        found.add(at(), Event(FAILED, f"guess{number}", "a"))
        found.add(at(), login(address=f"address{number}"))
    assert (found.address_rows()[0]["names"], row(found)["addresses"]) == (5, 7)


# -- lists -------------------------------------------------------------------------------------------------------------

def test_lists_in_their_orders(found):
    found.add(at(), update("big", left=1, left_octets=9000))
    found.add(at(days=1), update("big", left=1, left_octets=9100))
    found.add(at(), update("grows", left=1, left_octets=10))
    found.add(at(days=1), update("grows", left=2, left_octets=5000))
    found.add(at(), update("deletes", deleted=9, deleted_octets=99))
    found.add(at(), update("shrinks", left=2, left_octets=90))
    found.add(at(days=1), update("shrinks", deleted=1, deleted_octets=50, left=1, left_octets=40))
    rows = found.user_rows()
    assert [each["user"] for each in sums.by_size(rows)] == ["big", "grows", "shrinks"]
    assert [each["user"] for each in sums.by_growth(rows)] == ["grows", "big"]
    assert [each["user"] for each in sums.by_polling(rows)] == ["big", "grows", "shrinks"]
    assert [each["user"] for each in sums.by_users(rows)] == ["deletes", "shrinks", "big", "grows"]


def test_first_and_last_whatever_the_order(found):
    assert found.first is None and found.totals()["sessions"] == 0 and found.day_rows() == []
    for days in 2, 0, 1:
        found.add(at(days=days), login(session=str(days)))
    assert (found.first, found.last, row(found)["last"]) == (at(), at(days=2), at(days=2))
