"""The fault matrix: every fault at every system call, in every place, and the table that says what came of it.

    matrix.py [--place NAME] [--call NAME] [--fault NAME]    run these (again and again), all that are not given; print
                                                             the table, and each case that went wrong
"""

import argparse
import contextlib
import multiprocessing
import os
import re
import signal
import sys
import time
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(TREE / "tests" / "torture"), str(TREE)]

from matrix_calls import CALLS                # noqa: E402
from matrix_faults import FAULTS              # noqa: E402
from matrix_judge import COMPLAINTS, LATE, Cell, Trial      # noqa: E402
from matrix_session import Spool              # noqa: E402
from places_faulty import PLACES, Unavailable, plain, workshop     # noqa: E402

README = TREE / "popper" / "README.md"
BEGIN, END = "<!-- the fault matrix, written by make torture -->", "<!-- the end of it -->"
NAMES = re.compile(r"/\S*/popper-\w+/(?:\w+/)?(?=spool|tmp)|\[\d+\]")


def run(places=tuple(PLACES), calls=CALLS, faults=tuple(FAULTS), tell=lambda line: None) -> "tuple[dict, dict]":
    """({(place, call, fault): Cell}, {place: why it was not to be had})

    Whoever finds the lock of a session that was killed waits a moment, so there are more processes than processors.
    """
    cells, missing = {}, {}
    longest = sorted(calls, key=lambda name: -len(calls[name].before) - 9999 * (calls[name].crashed is not None))
    jobs = [(place, name, calls[name], tuple(faults)) for name in longest for place in places]
    with multiprocessing.get_context("spawn").Pool(2 * (os.cpu_count() or 1), maxtasksperchild=1) as pool:
        for place, call, found, seconds in pool.imap_unordered(_job, jobs, chunksize=1):
            if isinstance(found, str):
                missing[place] = found
                continue
            cells |= {(place, call, fault): cell for fault, cell in found.items()}
            tell(f"{place}, {call}: {sum(cell.tried for cell in found.values())} injections, {seconds:.0f} s")
    return cells, missing


def _job(job) -> tuple:
    """Strike one call in one place (one of no special name is anywhere) with each fault. -> (place, name of the call,
    {fault: Cell} or what is missing, seconds)"""
    place, name, call, faults = job
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))        # the pool ends early: take down what was mounted
    try:
        with PLACES.get(place, plain)() as where, workshop() as bench:
            trial = Trial(Spool(where, bench, call), call)
            found = {fault: trial.run(fault) for fault in faults}
    except Unavailable as reason:
        found = str(reason)
    except AssertionError as why:            # it does not even work without a fault
        found = {faults[0]: Cell()}
        found[faults[0]].bad["internal error"].append(f"without any fault: {why}")
    return place, name, found, time.monotonic() - begun


def total(cells) -> Cell:
    """The sum of cells."""
    whole = Cell()
    for cell in cells:
        whole.add(cell)
    return whole


def table(cells: "dict", missing: "dict[str, str]") -> str:
    """What the README says."""
    places, calls, faults = ([name for name in names if any(key[at] == name for key in cells)]
                             for at, names in ((0, PLACES), (1, CALLS), (2, FAULTS)))

    def line(*words) -> str:
        return "| " + " | ".join(map(str, words)) + " |"

    def over(**wanted) -> Cell:
        return total(cell for (place, call, fault), cell in cells.items()
                     if wanted.get("call", call) == call and wanted.get("fault", fault) == fault
                     and wanted.get("place", place) == place)
    whole = over()
    lines = [f"{whole.tried} injections. {_verdict(whole)}", "",
             line("", *calls), "|---" * (len(calls) + 1) + "|"]
    for fault in faults:
        lines.append(line(fault, *(_shown(over(call=call, fault=fault)) for call in calls)))
    lines += ["", line("place", "injections", "in pieces", *COMPLAINTS, "slowest next login"),
              "|---" * (len(COMPLAINTS) + 4) + "|"]
    for place in places:
        cell = over(place=place)
        lines.append(line(place, cell.tried, cell.pieces, *(len(cell.bad[name]) for name in COMPLAINTS),
                          f"{cell.slowest:.1f} s"))
    lines += [line(place, f"not to be had: {why}", *[""] * (len(COMPLAINTS) + 2)) for place, why in missing.items()]
    return "\n".join(lines)


def _verdict(cell: Cell) -> str:
    words = {"damaged": "Mailboxes damaged", "wrong reply": "wrong replies",
             "late": f"next logins refused or later than {LATE:.0f} s", "left over": "files left over",
             "internal error": "internal errors"}
    return ", ".join(f"{words[name]}: {len(cell.bad[name])}" for name in COMPLAINTS) + "."


def _shown(cell: Cell) -> str:
    """`41`, or `41·9` where 9 mailboxes were in pieces until the next opener came, or **41!2** with 2 that failed."""
    words = str(cell.tried) + (f"·{cell.pieces}" if cell.pieces else "")
    bad = len(cell.cases())
    return f"**{words}!{bad}**" if bad else words


def cases(cells: "dict") -> "list[str]":
    """What went wrong, and where, without the names of temporary directories."""
    return [f"{place}, {call}: {NAMES.sub('', case)}" for (place, call, _), cell in cells.items()
            for case in cell.cases()]


def put_into_readme(text: str) -> bool:
    """Bring the table in the README up to date; whether it was not."""
    readme = README.read_text("utf-8")
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, f"{README} has lost the marks of its table"
    new = f"{before}{BEGIN}\n{text}\n{END}{after}"
    if new != readme:
        README.write_text(new, "utf-8")
    return new != readme


def main() -> int:
    parser = argparse.ArgumentParser(prog="matrix.py")
    for name, known in (("place", PLACES), ("call", CALLS), ("fault", FAULTS)):
        parser.add_argument(f"--{name}", action="append", choices=list(known), metavar="NAME",
                            help=", ".join(known))
    asked = parser.parse_args()
    cells, missing = run(asked.place or tuple(PLACES), {name: CALLS[name] for name in asked.call or CALLS},
                         asked.fault or tuple(FAULTS), lambda line: print(line, file=sys.stderr))
    print(table(cells, missing))
    bad = cases(cells)
    print("\n".join(bad))
    return bool(bad)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
