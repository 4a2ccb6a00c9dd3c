"""RFC 1081 and 1082 (LAST, RPOP, XTND), RFC 1460 and what RFC 1957 found in the wild. Each test cites its line."""

import pytest

from dialogue import ONE, THREE, TWO, USER, mbox, site, wire          # noqa: F401

READ = b"Subject: read\nStatus: RO\n\nx\n"
UNREAD = b"Subject: not read\nStatus: O\n\nx\n"


def last(pop):
    number, words = pop.ok("LAST").split(" ", 1)
    assert words == "is the last message seen."
    return int(number)


def test_last_is_the_highest_retrieved(site):
    """1081.01 LAST is 0 at first and then the highest message that was retrieved; TOP and LIST do not count."""
    site.deliver(mbox(ONE, TWO, THREE))
    pop = site.log_in()
    assert last(pop) == 0
    pop.text("TOP 3 0")
    pop.ok("LIST 3")
    assert last(pop) == 0
    for number, highest in ((2, 2), (1, 2), (3, 3), (2, 3)):
        pop.text(f"RETR {number}")
        assert last(pop) == highest
    pop.quit()


def test_last_begins_at_what_status_says(site):
    """1081.01 at the start LAST is the highest message whose Status: says that it was read."""
    site.deliver(mbox(READ, READ, UNREAD, ONE))
    pop = site.log_in()
    assert last(pop) == 2
    pop.text("RETR 1")
    assert last(pop) == 2
    pop.text("RETR 4")
    assert last(pop) == 4
    pop.quit()


def test_a_refused_retr_moves_nothing(site):
    """1081.01 a RETR that was answered -ERR retrieved nothing."""
    site.deliver(mbox(ONE, TWO))
    pop = site.log_in()
    pop.text("RETR 1")
    pop.err("RETR 7")
    assert last(pop) == 1
    pop.quit()


def test_rset_sets_last_back(site):
    """1081.02 RSET sets LAST back to where the session found it."""
    site.deliver(mbox(READ, ONE, TWO))
    pop = site.log_in()
    pop.text("RETR 3")
    assert last(pop) == 3
    pop.ok("RSET")
    assert last(pop) == 1
    pop.quit()


def test_rpop_lets_nobody_in(site):
    """1081.03 RPOP is refused to everybody, from whatever port; 1460: it is gone since."""
    pop = site.session(tcp=True)
    pop.ok(f"USER {USER}")
    assert pop.err(f"RPOP {USER}") == "Permission denied."
    assert pop.err("STAT").startswith("Unknown command")
    pop.quit()


def test_xtnd_only_after_login(site):
    """1082.01 XTND belongs to TRANSACTION; an unknown word is -ERR, and the session goes on."""
    site.deliver(mbox(ONE))
    pop = site.session()
    assert pop.err("XTND XLST Subject") == 'Unknown command: "xtnd".'
    pop.log_in()
    assert pop.err("XTND") == "Too few arguments for the xtnd command."
    assert pop.err("XTND WHATEVER x") == 'Unknown command: "xtnd whatever".'
    assert pop.ok("STAT").startswith("1 ")
    pop.quit()


@pytest.mark.parametrize("word", ["BBOARDS", "BBOARDS xpert", "ARCHIVE xpert", "X-BBOARDS xpert"])
def test_no_bulletin_boards(site, word):
    """1082.02 the boards of RFC 1082 are not offered."""
    pop = site.log_in()
    assert pop.err(f"XTND {word}").startswith("Unknown command")
    pop.quit()


def test_a_space_follows_the_status_word(site):
    """1957.01 +OK and -ERR are always followed by a space, even when nothing else is; old clients insist on it."""
    site.deliver(mbox(ONE))
    pop = site.session(greeting=False)
    for command in ("NOOP", "CAPA", "USER mrose", "PASS tanstaaf", "NOOP", "STAT", "LIST", "RETR 1", "UIDL", "RSET",
                    "XTND", "QUIT"):
        pop.send(f"{command}\r\n")
    firsts = [line for line in pop.end().split(b"\r\n") if line.startswith((b"+OK", b"-ERR"))]
    assert len(firsts) == 13
    assert all(line.startswith((b"+OK ", b"-ERR ")) for line in firsts)
    assert firsts[5] == b"+OK "


def test_uidl_and_top_are_there(site):
    """1957.02 Netscape needs UIDL and Eudora needs TOP."""
    site.deliver(mbox(ONE))
    pop = site.log_in()
    assert len(pop.lines("UIDL")) == 1
    assert pop.text("TOP 1 1") == wire(ONE)
    pop.quit()
