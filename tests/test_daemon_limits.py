"""How many may come to popper on its own, what the others are told, and that its log is not flooded by it."""

from conftest import wait_until
from dialogue import ONE, mbox, site                                               # noqa: F401
from on_its_own import REFUSED, start                                                 # noqa: F401

FROM_ADDRESS = "-ERR [SYS/TEMP] Too many connections from your address, try again later."


def told(daemon, limit):
    """What the log says of a limit, and how many were turned away by it."""
    return daemon.lines(f"warning: {limit}: "), daemon.status["counters"]["turned_away"][limit]


def test_sessions(site, start):
    """Strangers are not counted; the password of one session too many is not looked at. A free place is had."""
    users = [f"user{number}" for number in range(4)]
    for user in users:
        site.add(user, "word")
        site.deliver(mbox(ONE), user)
    daemon = start(maxsessions=2)
    waiting = [daemon.call() for _ in range(4)]
    first, second = daemon.log_in("user0", "word"), daemon.log_in("user1", "word")
    for pop, password in zip(waiting[:3], ("word", "not the one", "word")):
        pop.ok("USER user2")
        assert pop.err(f"PASS {password}") == "[SYS/TEMP] Too many sessions, try again later."
        assert pop.end() == b""
    assert told(daemon, "maxsessions") == (["warning: maxsessions: a connection from 127.0.0.1 is refused"], 3)
    assert daemon.status["counters"]["denied"] == 0
    first.quit()
    daemon.sessions(1)
    waiting[3].log_in("user3", "word").quit()
    second.quit()


def test_one_address(site, start):
    """Strangers and sessions of one address count together; others come in."""
    site.deliver(mbox(ONE))
    daemon = start(sameaddrmax=3)
    session, stranger, _ = daemon.log_in(), daemon.call(), daemon.call()
    for _ in range(3):
        daemon.turned_away(FROM_ADDRESS)
    assert told(daemon, "sameaddrmax") == (["warning: sameaddrmax: a connection from 127.0.0.1 is refused"], 3)
    daemon.call("127.0.0.2").quit()
    session.quit()
    wait_until(lambda: daemon.status["strangers"] == 2 and not daemon.status["sessions"])
    daemon.log_in()
    daemon.turned_away(FROM_ADDRESS)
    stranger.quit()
    wait_until(lambda: daemon.status["strangers"] == 1)
    daemon.call()


def through_proxy(daemon, address):
    pop = daemon.call("127.0.0.2", greeted=False)
    pop.send(f"PROXY TCP6 {address} 2001:db8::99 4000 110\r\n")
    return pop


def test_one_prefix(start):
    """An IPv6 address counts with its neighbours; whom a proxy speaks for is counted, and not the proxy."""
    daemon = start(sameaddrmax=1, ipv6_prefix=56, proxy_from="127.0.0.2")
    first = through_proxy(daemon, "2001:db8:0:1::1")
    assert first.reply().startswith("+OK ")
    neighbour = through_proxy(daemon, "2001:db8:0:ff::2")
    assert neighbour.reply() == FROM_ADDRESS and neighbour.end() == b""
    assert through_proxy(daemon, "2001:db8:0:100::1").reply().startswith("+OK ")
    assert told(daemon, "sameaddrmax") == (["warning: sameaddrmax: a connection from 2001:db8:0:ff::2 is refused"], 1)


def test_so_many_a_second(start):
    """sec.12: as many as fit in a second may come at once; when it has passed, others may."""
    daemon = start(accepts=5)
    replies = [daemon.call(greeted=False).reply() for _ in range(30)]
    assert replies[:5] == [replies[0]] * 5 and replies[0].startswith("+OK ")
    refused = replies.count(REFUSED)
    assert replies.count(replies[0]) + refused == 30 and refused >= 5
    assert told(daemon, "accepts") == (["warning: accepts: a connection from 127.0.0.1 is refused"], refused)
    wait_until(lambda: daemon.call(greeted=False).reply() == replies[0])


def test_strangers(site, start):
    """The one that goes is the oldest of the address that has most; so users still come in, and nobody else suffers."""
    site.deliver(mbox(ONE))
    daemon = start(maxstrangers=10)
    others = [daemon.call("127.0.0.3"), daemon.call("127.0.0.3")]
    crowd = [daemon.call("127.0.0.2") for _ in range(10)]
    session = daemon.log_in()
    late = daemon.call(), daemon.call()      # who is logged in has left a place
    for pop in crowd[:4]:
        assert pop.reply() == REFUSED and pop.end() == b""
    for pop in (*others, *crowd[4:], *late):
        pop.ok("CAPA")
        pop.raw_body()
        pop.quit()
    assert session.ok("STAT").startswith("1 ")
    assert told(daemon, "maxstrangers") == (["warning: maxstrangers: a connection from 127.0.0.2 is refused"], 4)


def test_users_come_in_beside_the_silent_and_the_aborted(site, start):
    """sec.02: hundreds that say nothing, or hung up before they heard anything, keep nobody out, and are kept."""
    site.deliver(mbox(ONE))
    daemon = start(maxstrangers=1000, sameaddrmax=1000)
    silent = [daemon.call() for _ in range(200)]
    for _ in range(200):
        daemon.call(greeted=False).hang_up()
    daemon.log_in().quit()
    for pop in silent:
        pop.quit()
    assert daemon.status["counters"]["logins"] == 1


def test_users_come_in_through_a_flood(site, start):
    """sec.12: whoever calls faster than he is answered takes the places of his own kind only."""
    site.deliver(mbox(ONE))
    daemon = start(maxstrangers=20)
    flood = []
    for _ in range(5):
        flood += [daemon.call("127.0.0.2", greeted=False) for _ in range(40)]
        daemon.log_in().quit()
    status = daemon.status
    assert status["counters"]["logins"] == 5 and status["strangers"] <= 20
    lines, refused = told(daemon, "maxstrangers")
    assert refused >= 180 and len(lines) == 1
