"""The Stats line, as logwatch and pop-before-smtp scripts read it (ucb-popper.md 8)."""

import re

from popper.tally import Tally

# What pop-before-smtp looks for, and what logwatch takes the figures from.
POP_BEFORE_SMTP = r"Stats: \S+ \d+ \d+ \d+ \d+ (\S+ )?10\.0\.0\.1$"
LOGWATCH = r"Stats: ([^ ]+) ([^ ]+) ([^ ]+) ([^ ]+) ([^ ]+)"


def test_a_tally_begins_at_nothing():
    assert Tally().stats("joe", "host.example", "10.0.0.1") == "Stats: joe 0 0 0 0 host.example 10.0.0.1"


def test_deleted_comes_before_left_and_messages_before_octets():
    tally = Tally()
    tally.deleted, tally.deleted_octets, tally.left, tally.left_octets = 1, 22, 333, 4444
    line = tally.stats("joe", "10.0.0.1", "10.0.0.1")
    assert line == "Stats: joe 1 22 333 4444 10.0.0.1 10.0.0.1"
    assert re.search(POP_BEFORE_SMTP, line)
    assert re.search(LOGWATCH, line).groups() == ("joe", "1", "22", "333", "4444")


def test_octets_on_the_wire_are_not_those_of_messages():
    tally = Tally()
    tally.received, tally.sent = 7, 99
    assert " 7 " not in tally.stats("joe", "h", "a") and " 99 " not in tally.stats("joe", "h", "a")
