"""How many may come: the sums are right whatever happens in whatever order, and a flood pushes out itself."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popper.limits import Crowd, Seldom, is_address, neighbourhood

quick = settings(deadline=None, max_examples=300, database=None, derandomize=True)


def crowd(**options):
    return Crowd(SimpleNamespace(**{**dict(sameaddrmax=0, maxstrangers=2000, accepts=0, ipv6_prefix=64), **options}))


# -- addresses -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("one, other, prefix, same", [
    ("192.0.2.1", "192.0.2.1", 64, True),
    ("192.0.2.1", "192.0.2.2", 32, False),
    ("2001:db8::1", "2001:db8:0:0:ffff::", 64, True),
    ("2001:db8::1", "2001:db8:0:1::1", 64, False),
    ("2001:db8:0:1::1", "2001:db8:0:0::1", 63, True),
    ("2001:db8:0:2::1", "2001:db8:0:1::1", 63, False),
    ("2001:db8:ffff::1", "2001:db8::1", 32, True),
    ("2001:db9::1", "2001:db8::1", 32, False),
    ("2001:db8::1", "2001:db8::2", 128, False),
    ("2001:db8::1", "2001:DB8:0::1", 128, True),
    ("::1", "::2", 64, True),
    ("local", "local", 64, True),
    ("local", "192.0.2.1", 64, False)])
def test_neighbours(one, other, prefix, same):
    assert (neighbourhood(one, prefix) == neighbourhood(other, prefix)) is same


@pytest.mark.parametrize("text, is_one", [("192.0.2.1", True), ("::1", True), ("2001:db8::", True), ("local", False),
                                          ("", False), ("192.0.2.1 ", False), ("192.0.2.256", False),
                                          ("::1%eth0", False),
                                          ("192.0.2.1\n", False), ("client.example.org", False)])
def test_what_is_an_address(text, is_one):
    assert is_address(text) is is_one


# -- the crowd -------------------------------------------------------------------------------------------------------

ADDRESSES = ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "local")


@settings(quick, max_examples=500)
@given(st.lists(st.tuples(st.sampled_from(("come", "known", "leave", "push")), st.integers(0, 30),
                          st.sampled_from(ADDRESSES))),
       st.integers(1, 8), st.integers(1, 5))
def test_the_sums_are_right_for_any_sequence(steps, maxstrangers, sameaddrmax):
    """Against a list of everybody, counted anew each time."""
    one = crowd(maxstrangers=maxstrangers, sameaddrmax=sameaddrmax)
    there, last = {}, 0                      # number: [address, stranger]
    for step, number, address in steps:
        number = sorted(there)[number % len(there)] if there and step != "come" else number
        if step == "come":
            last += 1
            one.come(last, address)
            there[last] = [address, True]
        elif step == "leave":
            one.leave(number)
            there.pop(number, None)
        elif step == "known" and number in there:
            one.known(number)
            there[number][1] = False
        elif step == "push":
            pushed = one.one_too_many()
            strangers = [each for each, (_, strange) in there.items() if strange]
            if len(strangers) <= maxstrangers:
                assert pushed is None
            else:
                place = neighbourhood(there[pushed][0], 64)
                of = {}
                for each in strangers:
                    of.setdefault(neighbourhood(there[each][0], 64), []).append(each)
                assert len(of[place]) == max(map(len, of.values())) and pushed == min(of[place])
        assert one.strangers == sum(strange for _, strange in there.values()) == len(one.all_strangers())
        assert sorted(one.all_strangers()) == sorted(each for each, (_, strange) in there.items() if strange)
        counted = {}
        for each, _ in there.values():
            place = neighbourhood(each, 64)
            counted[place] = counted.get(place, 0) + 1
        assert one.addresses == counted and all(count > 0 for count in one.addresses.values())
        for each in ADDRESSES:
            assert one.is_full_for(each) == (counted.get(neighbourhood(each, 64), 0) >= sameaddrmax)
    for number in list(there):
        one.leave(number)
    assert (one.addresses, one.strange, one.places, one.strangers) == ({}, {}, {}, 0)


def test_zero_is_no_limit_for_an_address():
    one = crowd(sameaddrmax=0)
    for number in range(1000):
        one.come(number, "192.0.2.1")
    assert not one.is_full_for("192.0.2.1")


def test_sessions_count_for_their_address_too():
    one = crowd(sameaddrmax=2)
    one.come(1, "192.0.2.1")
    one.known(1)
    one.come(2, "192.0.2.1")
    assert one.is_full_for("192.0.2.1") and not one.is_full_for("192.0.2.2")
    one.leave(1)
    assert not one.is_full_for("192.0.2.1")


def test_a_flood_pushes_out_itself_and_users_stay():
    one = crowd(maxstrangers=10)
    one.come(0, "198.51.100.1")
    pushed = []
    for number in range(1, 101):
        one.come(number, f"2001:db8::{number:x}")
        if (out := one.one_too_many()) is not None:
            one.leave(out)
            pushed.append(out)
    assert pushed == list(range(1, 92))      # the oldest first, and never the user
    assert one.strangers == 10 and 0 in one.all_strangers()


def test_who_has_been_sent_away_counts_for_his_address_until_he_has_gone():
    one = crowd(maxstrangers=1, sameaddrmax=2)
    one.come(1, "192.0.2.1")
    one.come(2, "192.0.2.1")
    one.known(one.one_too_many())
    assert one.one_too_many() is None and one.strangers == 1 and one.is_full_for("192.0.2.1")
    one.leave(1)
    one.leave(1)
    assert one.strangers == 1 and not one.is_full_for("192.0.2.1")


def test_a_prefix_that_changes_leaves_the_sums_right():
    one = crowd(ipv6_prefix=64)
    one.come(1, "2001:db8::1")
    one.options.ipv6_prefix = 48
    one.come(2, "2001:db8:0:1::1")
    one.leave(1)
    one.leave(2)
    assert (one.addresses, one.strange, one.strangers) == ({}, {}, 0)


# -- so many a second ------------------------------------------------------------------------------------------------

def test_any_number_a_second_where_there_is_no_limit():
    one = crowd(accepts=0)
    assert not any(one.too_fast(100.0) for _ in range(100000))


def test_so_many_a_second_and_a_burst_of_one_second():
    one = crowd(accepts=10)
    assert [one.too_fast(1000.0) for _ in range(12)] == [False] * 10 + [True] * 2
    assert [one.too_fast(1000.25) for _ in range(3)] == [False, False, True]
    assert not one.too_fast(1000.3125)       # what was half saved is not lost
    assert [one.too_fast(5000.0) for _ in range(12)] == [False] * 10 + [True] * 2


@quick
@given(st.integers(1, 50), st.lists(st.floats(0, 3), max_size=200))
def test_never_more_than_the_average_and_a_burst(accepts, pauses):
    one, now, let_in = crowd(accepts=accepts), 1000.0, 0
    for pause in pauses:
        now += pause
        let_in += not one.too_fast(now)
        assert let_in <= accepts + (now - 1000.0) * accepts + 1e-6


def test_a_limit_that_is_set_by_a_reload_is_in_force():
    one = crowd(accepts=0)
    one.too_fast(1000.0)
    one.options = SimpleNamespace(accepts=2)
    assert [one.too_fast(1000.0) for _ in range(3)] == [False, False, True]


# -- lines that are told seldom ---------------------------------------------------------------------------------------

def test_a_line_is_told_once_in_a_while_with_how_many_were_not():
    seldom = Seldom()
    assert seldom.line("fork", "no process", 0.0) == "no process"
    assert [seldom.line("fork", "no process", at) for at in (0.1, 5.0, 9.9)] == [None] * 3
    assert seldom.line("accept", "no descriptor", 5.0) == "no descriptor"
    assert seldom.line("fork", "no process", 10.0) == "no process (and 3 more since the last such line)"
    assert seldom.line("fork", "no process", 19.9) is None
    assert seldom.line("fork", "no process", 20.0) == "no process (and 1 more since the last such line)"
    assert seldom.line("fork", "no process", 40.0) == "no process"
