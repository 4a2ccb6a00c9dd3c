"""One session on descriptors that somebody else opened, by a parent that left odd things behind."""

import os
import signal

import pytest
from dialogue import USER, mbox, site                        # noqa: F401  site is a fixture

ONE = b"Subject: one\n\nOne.\n"


def test_children_are_ours_to_bury_whatever_our_parent_thought_of_its_own(site):
    """SIG_IGN for SIGCHLD survives exec, and would take the child that asks DNS out of our hands."""
    site.deliver(mbox(ONE))
    pop = site.session(tcp=True, lookup=True, before=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    pop.log_in()
    pop.quit()


def test_signals_that_our_parent_blocked_are_heard(site):
    site.deliver(mbox(ONE))
    pop = site.session(before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,)))
    pop.log_in()
    os.kill(pop.child, signal.SIGTERM)
    assert pop.end() == b"" and pop.status == 0
    assert site.left_over() == []


@pytest.mark.parametrize("trace", (False, True))
def test_debugging_says_so_first(site, trace):
    file = site.place / "trace"
    site.session(**({"trace": str(file)} if trace else {"debug": True})).quit()
    lines = [line.partition("] ")[2] for line in file.read_text().splitlines()] if trace else site.log()
    first = f'Tracing session and debugging information in file "{file}"' if trace else "notice: Debugging turned on"
    assert lines[0] == first and USER not in lines[0]
