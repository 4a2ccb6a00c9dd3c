"""Who guesses is slowed down, and nobody else: counts, turns, pairs."""

import os
import signal

import pytest
from guessing import (ANN, HERE, JOE, THERE, Clock, again, clock, count, fail, fail_elsewhere, held,       # noqa: F401
                      path)
from hypothesis import given
from hypothesis import strategies as some

from popper.guessers import KNOWN, Guessers
from popper.slots import packed, shown


# -- what it costs ---------------------------------------------------------------------------------------------------

def test_who_has_done_nothing_wrong_does_not_wait(held):
    assert [held.wait(HERE, JOE) for _ in range(100)] == [0.0] * 100
    assert held.held() == []


def test_two_mistakes_cost_nothing_and_the_third_does(held):
    fail(held, 2)
    assert held.wait(HERE, JOE) == held.wait(HERE, ANN) == 0.0
    fail(held, 1)
    assert held.wait(HERE, ANN) == 1.0


def test_each_failure_doubles_the_interval_up_to_the_most(held, clock):
    waits = []
    for _ in range(12):
        held.failed(HERE, JOE)
        waits.append(held.wait(HERE, ANN))
        clock.now += waits[-1]
    assert waits[:2] == [0.0, 0.0] and waits[-1] == 30.0
    assert all(before < after <= 2 * before or after == 30.0 for before, after in zip(waits[2:], waits[3:]))


@pytest.mark.parametrize("failures, interval",
                         [(3, 1.0), (4, 2.0), (5, 4.0), (6, 8.0), (7, 16.0), (8, 30.0), (60, 30.0)])
def test_the_interval_of_an_address(held, failures, interval):
    fail(held, failures, HERE, JOE)
    assert held.wait(HERE, ANN) == interval
    assert not held.late


@pytest.mark.parametrize("failures, interval", [(2, 0.0), (3, 1.0), (5, 4.0), (6, 7.5), (200, 7.5)])
def test_a_name_slows_by_a_quarter_of_the_most_wherever_it_is_tried(held, failures, interval):
    fail_elsewhere(held, failures)
    assert held.wait(HERE, JOE) == interval
    assert held.wait(HERE, ANN) == 0.0


def test_base_and_most_are_what_was_asked_for(again):
    fail(again(), 4)
    assert again(base=0.1).wait(HERE, ANN) == pytest.approx(0.4)
    assert again(most=2).wait(HERE, ANN) == 2.0


def test_nothing_at_all_is_done_when_the_most_is_none(again, path):
    none = again(most=0)
    fail(none, 50)
    none.succeeded(HERE, JOE)
    assert none.wait(HERE, JOE) == 0.0 and none.held() == [] and none.trouble == ""
    assert not path.exists()


def test_names_that_do_not_exist_count_alike_and_any_octets_are_a_name(held):
    for name in (b"", b"\0", b"\xff" * 64, b"x" * 5000, b"joe\0", b"joe"):
        fail_elsewhere(held, 4, name)
        assert held.wait(HERE, name) == 2.0, name


@pytest.mark.parametrize("address", ["local", "", "unknown", "192.0.2", "192.0.2.9\0", "::1::2", "\ud800", "a" * 9999])
def test_what_is_no_address_is_not_counted(held, address):
    fail(held, 50, address)
    held.succeeded(address, JOE)
    assert held.wait(address, JOE) == held.wait(HERE, JOE) == 0.0
    assert held.held() == [] and held.trouble == ""


# -- turns -----------------------------------------------------------------------------------------------------------

def test_attempts_at_once_queue_up_one_interval_after_the_other(held):
    fail(held, 5)
    assert [held.wait(HERE, ANN) for _ in range(7)] == [4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 28.0]
    assert not held.late


def test_a_turn_that_would_come_too_late_is_told_and_not_booked(held, clock):
    fail(held, 7)
    assert held.wait(HERE, ANN) == 16.0 and not held.late
    assert [(held.wait(HERE, ANN), held.late) for _ in range(100)] == [(30.0, True)] * 100
    clock.now += 16
    assert held.wait(HERE, ANN) < 16.0 and not held.late        # a hundred in vain have not made the queue longer
    assert held.wait(THERE, ANN) == 0.0 and not held.late


def test_who_comes_back_after_each_turn_is_never_late(held, clock):
    fail(held, 100)
    for _ in range(50):
        wait = held.wait(HERE, ANN)
        assert wait == 30.0 and not held.late
        clock.now += wait
        held.failed(HERE, ANN)


def test_nobody_is_late_for_the_sake_of_a_name(held):
    fail_elsewhere(held, 200)
    assert [(held.wait(HERE, JOE), held.late) for _ in range(100)] == [(7.5, False)] * 100


def test_turns_are_shared_between_sessions(held, again):
    fail(held, 5)
    other = again()
    assert [held.wait(HERE, ANN), other.wait(HERE, ANN), held.wait(HERE, ANN)] == [4.0, 8.0, 12.0]


# -- fading ----------------------------------------------------------------------------------------------------------

def test_failures_fade_by_half_an_address_every_ten_minutes_a_name_every_five(held, clock):
    fail(held, 8)
    clock.now += 300
    assert count(held, "joe") == pytest.approx(4)
    clock.now += 300
    assert (count(held, HERE), count(held, "joe")) == (pytest.approx(4), pytest.approx(2))
    assert held.wait(HERE, ANN) == pytest.approx(2.0)
    clock.now += 600.1
    assert held.wait(HERE, ANN) == 0.0
    clock.now += 1200
    assert held.held() == []


@given(some.lists(some.tuples(some.sampled_from(["wait", "failed", "succeeded"]),
                              some.sampled_from([HERE, "2001:db8::1"]), some.sampled_from([JOE, ANN, b""]),
                              some.floats(-2e5, 2e5)), max_size=40),
       some.integers(1, 300), some.floats(0, 1000))
def test_whatever_happens_waits_are_bounded_and_all_is_forgotten_in_the_end(tmp_path_factory, events, most, base):
    clock = Clock()
    held = Guessers(str(tmp_path_factory.mktemp("any") / "guessers"), most, base, clock=clock)
    for verb, address, name, seconds in events:
        clock.now += seconds
        wait = getattr(held, verb)(address, name)
        assert verb != "wait" or 0.0 <= wait <= most
    assert all(0.5 <= failures <= len(events) and 0.0 <= wait <= most for _, _, failures, wait in held.held())
    clock.now += 40 * 2e5 + 2 * 3600
    assert held.held() == [] and held.trouble == ""
    assert held.wait(HERE, JOE) == held.wait("2001:db8::1", ANN) == 0.0
    held.close()


@given(some.integers(0, 40), some.floats(0, 1e5), some.floats(0, 1e5))
def test_more_time_is_never_worse(tmp_path_factory, failures, first, second):
    waits = []
    for seconds in sorted((first, second)):
        clock = Clock()
        held = Guessers(str(tmp_path_factory.mktemp("any") / "guessers"), 30, clock=clock)
        fail(held, failures)
        clock.now += seconds
        waits.append(held.wait(HERE, ANN))
        held.close()
    assert waits[0] >= waits[1]


def test_the_count_has_an_end_and_so_has_the_punishment(held, clock):
    fail(held, 1200)
    assert count(held, HERE) == count(held, "joe") == 1000
    clock.now += 2 * 3600
    assert held.held() == [] and held.wait(HERE, JOE) == 0.0


@pytest.mark.parametrize("jump", [-1e9, -86400, -60, -1])
def test_a_clock_that_was_set_back_takes_what_it_finds_as_of_now(held, clock, jump):
    fail(held, 6)
    assert [held.wait(HERE, ANN) for _ in range(3)] == [8.0, 16.0, 24.0]
    clock.now += jump
    assert count(held, HERE) == 6
    wait = held.wait(HERE, ANN)
    assert wait == (30.0 if jump == -1 else 8.0), "the queue is that of a time which will not come soon"
    held.failed(HERE, JOE)
    clock.now += 7200
    assert held.wait(HERE, JOE) == 0.0 and held.held() == []


@pytest.mark.parametrize("now", [-5.0, 0.0, 1.0, 4e9])
def test_any_clock_will_do(again, now):
    held = again(clock=Clock(now))
    fail(held, 5)
    assert held.wait(HERE, ANN) == 4.0 and held.trouble == ""


# -- pairs -----------------------------------------------------------------------------------------------------------

def test_who_got_in_lately_is_not_slowed_by_strangers_who_try_his_name(held, clock):
    held.succeeded(HERE, JOE)
    fail_elsewhere(held, 200)
    clock.now += 1
    assert held.wait(HERE, JOE) == 0.0
    assert held.wait(THERE, JOE) == 7.5
    assert held.wait(HERE, ANN) == 0.0


def test_nor_by_a_neighbour_behind_the_same_address(held):
    held.succeeded(HERE, JOE)
    fail(held, 20, HERE, ANN)
    assert held.wait(HERE, JOE) == 0.0
    assert held.wait(HERE, ANN) == 30.0


def test_but_by_failures_of_the_pair_itself(held):
    held.succeeded(HERE, JOE)
    fail(held, 5)
    assert [held.wait(HERE, JOE) for _ in range(3)] == [4.0, 8.0, 12.0]
    held.succeeded(HERE, JOE)
    assert held.wait(HERE, JOE) == 16.0, "a neighbour would profit from each success"
    assert count(held, HERE) == count(held, "joe") == 5


def test_a_success_does_not_clear_an_address_nor_a_name(held, clock):
    fail(held, 20)
    held.succeeded(HERE, ANN)
    held.succeeded(HERE, JOE)
    assert count(held, HERE) == count(held, "joe") == 20
    assert held.wait(HERE, b"somebody") == 30.0
    clock.now += 30
    assert held.wait(THERE, JOE) == 7.5


def test_a_pair_is_remembered_for_thirty_days_from_its_last_success(held, clock):
    held.succeeded(HERE, JOE)
    clock.now += KNOWN - 10
    fail_elsewhere(held, 20)
    assert held.wait(HERE, JOE) == 0.0
    fail(held, 1)                            # a failure does not make it younger
    clock.now += 20
    assert held.wait(HERE, JOE) > 0.0
    held.succeeded(HERE, JOE)
    clock.now += KNOWN - 10
    fail_elsewhere(held, 20)
    assert held.wait(HERE, JOE) == 0.0


def test_a_success_renews_a_pair_of_any_age(held, clock):
    for _ in range(40):
        held.succeeded(HERE, JOE)
        clock.now += KNOWN / 31
    fail_elsewhere(held, 20)
    assert held.wait(HERE, JOE) == 0.0


def test_a_success_of_today_is_not_written_again(held, path, clock):
    held.succeeded(HERE, JOE)
    before = path.read_bytes()
    clock.now += 3600
    held.succeeded(HERE, JOE)
    assert path.read_bytes() == before
    clock.now -= 7200                        # of a time that has not come
    held.succeeded(HERE, JOE)
    assert path.read_bytes() != before


def test_pairs_are_no_guessers_and_not_shown(held):
    held.succeeded(HERE, JOE)
    assert held.held() == []


# -- addresses -------------------------------------------------------------------------------------------------------

def test_ipv6_counts_by_its_prefix(again):
    held = again(prefix=56)
    fail(held, 5, "2001:db8:0:aa00::1")
    assert held.wait("2001:db8:0:aaff:1:2:3:4%eth0", ANN) == 4.0
    assert held.wait("2001:db8:0:ab00::1", ANN) == 0.0
    assert ("address", "2001:db8:0:aa00::/56") in [row[:2] for row in held.held()]


def test_ipv4_in_ipv6_is_ipv4(held):
    fail(held, 5, "::ffff:192.0.2.9")
    assert held.wait(HERE, ANN) == 4.0
    assert held.wait("::ffff:c000:0209", ANN) == 8.0
    assert held.wait("::ffff:192.0.2.10", ANN) == 0.0


@given(some.ip_addresses(v=6), some.integers(0, 128))
def test_what_is_behind_the_prefix_makes_no_difference(address, prefix):
    octets = packed(str(address), prefix)
    if address.ipv4_mapped:
        return
    first = int(address) >> (128 - prefix) << (128 - prefix)
    assert octets == first.to_bytes(16, "big") == packed(shown(octets, prefix).partition("/")[0], prefix)


@given(some.ip_addresses(v=4))
def test_an_ipv4_address_is_shown_as_it_was(address):
    assert shown(packed(str(address))) == str(address)


# -- the table of all ------------------------------------------------------------------------------------------------

def test_held_tells_the_worst_first(held, clock):
    fail(held, 3, HERE, b"a\x1b]0;b")
    fail_elsewhere(held, 5)
    fail(held, 9, THERE, ANN)
    rows = held.held()
    assert rows[0] == ("address", THERE, 9.0, 30.0)
    assert rows[1:4] == [("name", "ann", 9.0, 7.5), ("name", "joe", 5.0, 4.0), ("address", HERE, 3.0, 1.0)]
    assert ("name", "a\\x1b\\x5d0\\x3bb", 3.0, 1.0) in rows
    assert len(rows) == 10 and all(row[3] == 0.0 for row in rows[5:])
    held.wait(THERE, JOE)
    assert held.held()[0][3] == 30.0


# -- seats -----------------------------------------------------------------------------------------------------------

def sitting(path, *who):
    """A process that has a seat, if there was one, until its end: (whether it has, a function that ends it)."""
    (reader, told), (wait, end) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.close(end)
        os.write(told, b"1" if Guessers(str(path), 30).begin(*who) else b"0")
        os.read(wait, 1)
        os._exit(0)
    os.close(told)
    os.close(wait)
    has = os.read(reader, 1) == b"1"
    os.close(reader)

    def leave():
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(end)
    return has, leave


def test_of_one_address_only_so_many_may_be_tried_at_a_time(path, held):
    """Also by sessions that know nothing of each other; whoever is killed gives his seat back."""
    first, second, third = (sitting(path, HERE, name) for name in (JOE, ANN, b"nosuch"))
    try:
        assert first[0] and second[0] and third[0] and not held.begin(HERE, JOE)
        assert held.begin(THERE, JOE)
    finally:
        first[1]()
    assert held.begin(HERE, JOE)
    others = sitting(path, HERE, JOE)
    others[1]()
    held.end()
    last = sitting(path, HERE, JOE)
    for _, leave in second, third, last:
        leave()
    assert not others[0] and last[0]


def test_who_got_in_from_there_needs_no_seat(path, held):
    held.succeeded(HERE, ANN)
    taken = [sitting(path, HERE, JOE) for _ in range(3)]
    assert held.knows(HERE, ANN) and held.begin(HERE, ANN)
    assert not held.knows(HERE, JOE) and not held.begin(HERE, JOE) and not held.knows(THERE, ANN)
    for _, leave in taken:
        leave()


def test_a_file_that_cannot_be_used_seats_everybody(tmp_path):
    (tmp_path / "guessers").symlink_to(tmp_path / "elsewhere")
    assert all(Guessers(str(tmp_path / "guessers"), 30).begin(HERE, JOE) for _ in range(9))
