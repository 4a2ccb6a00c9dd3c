"""The fault matrix of popper/README.md, and faults that no injection can play.

Slow, therefore not part of `make check`: `make torture`. Needs root, strace, loop devices and FUSE; a place that is
not to be had here is told in one line, and the table in the README stays as it is.
"""

import os
import shutil

import pytest

from matrix import cases, put_into_readme, run, table, total
from matrix_calls import CALLS
from matrix_faults import Injection
from matrix_judge import Cell, Trial
from matrix_session import Spool
from places_faulty import PLACES, Unavailable, ext4, nearly_full, workshop

pytestmark = [pytest.mark.root, pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")]
DELETING = ("UPDATE: first", "middle", "last", "all", "huge", "mail arrives")
MOUNTED = ("sync", "dirsync,noatime", "data=journal", "data=writeback,nobarrier", "nodelalloc,lazytime")


def trial_in(place, bench, name):
    return Trial(Spool(place, bench, CALLS[name]), CALLS[name])


def test_every_fault_at_every_system_call():
    cells, missing = run(tell=lambda line: print(line, flush=True))
    for place, why in missing.items():
        print(f"{place}: not to be had here: {why}")
    if len(missing) == len(PLACES):
        pytest.skip("; ".join(sorted(set(missing.values()))))
    whole = total(cells.values())
    print(table(cells, missing))
    assert cases(cells) == []
    assert whole.missed * 100 < whole.tried, "sessions differ too much from each other to be struck"
    if not missing and put_into_readme(table(cells, missing)):
        print("The table in popper/README.md has been brought up to date.")


@pytest.mark.parametrize("name", (*DELETING, "by a keeper", "bulletin", "Status:", "XMIT"))
def test_a_disk_with_hardly_any_room(name):
    """Whatever room there is: nothing is damaged, no reply is a lie, and who deletes the last messages makes room."""
    cell = Cell()
    with available(nearly_full()) as place, workshop() as bench:
        trial = trial_in(place, bench, name)
        for pages in range(7):
            trial.spool.free = pages
            trial.strike(Injection(f"{pages} pages free", ()), cell)
        assert cell.cases() == []
        if name in ("last", "all"):
            trial.spool.free = 0
            trial.spool.lay(trial.files)
            assert trial.spool.talk(trial.call.commands, trial.words).signed_off


@pytest.mark.parametrize("name", (*DELETING, "Status:"))
def test_a_disk_that_goes_read_only_during_the_session(name):
    """QUIT is an honest -ERR, and when the disk is back, so is all mail."""
    with available(ext4()) as place, workshop() as bench:
        trial = trial_in(place, bench, name)
        spool, call = trial.spool, trial.call
        spool.lay(trial.files)
        os.sync()
        talk = spool.talk(call.commands, trial.words, between=place.fail)
        assert talk.opened.startswith(b"+OK") and b"-ERR [SYS/" in talk.said and not talk.signed_off
        assert "internal error" not in talk.log
        assert spool.mailbox() == call.before
        place.repair()
        assert spool.login()[0].opened.startswith(b"+OK")
        assert spool.mailbox() == call.before and spool.names() == []


@pytest.mark.parametrize("options", MOUNTED)
def test_killed_under_other_mount_options(options):
    with available(ext4(options)) as place, workshop() as bench:
        cell = trial_in(place, bench, "middle").run("KILL")
    assert cell.cases() == [] and cell.tried > 20 and cell.pieces > 0


class available:
    """The context of a place, or the test is skipped."""

    def __init__(self, place) -> None:
        self.place = place

    def __enter__(self):
        try:
            return self.place.__enter__()
        except Unavailable as why:
            pytest.skip(str(why))

    def __exit__(self, *trouble):
        return self.place.__exit__(*trouble)
