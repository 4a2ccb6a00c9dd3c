"""What a mailbox test has found: rates, times, waits and faults, for people and as a document."""

import os
import statistics

from popper.admin.dummies import MESSAGES
from popper.admin.owner import account_of

PHASES = ("session lock", "other locks", "open", "parse", "unique-ids", "delete", "put back", "release")


def report(trial, arguments: dict, console) -> int:
    document = document_of(trial)
    if console.json:
        console.document(document)
    else:
        _say(trial, arguments, document, console)
    if trial.faults:
        return os.EX_DATAERR
    return os.EX_OK if trial.rounds or trial.killed else os.EX_TEMPFAIL


def document_of(trial) -> dict:
    return {
        "mailboxes": [getattr(place, "path", "") or place.dummy.path for place in trial.places],
        "workers": trial.jobs, "seconds": round(trial.seconds, 3), "rounds": trial.rounds,
        "rounds_a_second": round(trial.rounds / trial.seconds, 1) if trial.seconds else 0.0,
        "deleted": trial.deleted, "delivered": trial.delivered, "turned_away": trial.busy,
        "phases": {name: {"count": len(trial.phases[name]), "median_ms": _ms(statistics.median(trial.phases[name])),
                          "worst_ms": _ms(max(trial.phases[name]))} for name in PHASES if trial.phases.get(name)},
        "waits": {what: {"count": len(found), "seconds": round(sum(seconds for seconds, _ in found), 3),
                         "worst_ms": _ms(max(found)[0]), "worst_for": max(found)[1]}
                  for what, found in sorted(trial.waits.items())},
        "killed": {"sessions": trial.killed, "done": trial.settled["done"], "undone": trial.settled["undone"]},
        "faults": [{"what": text, "times": times} for text, times in trial.faults.items()],
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _say(trial, arguments: dict, document: dict, console) -> None:
    count = len(trial.places)
    if arguments["--in-place"]:
        what = f"{count} mailbox{'es' * (count != 1)} in place"
    elif arguments["FILE"]:
        what = f"{'a copy' if count == 1 else 'copies'} of {count} mailbox{'es' * (count != 1)}"
    else:
        dummy = trial.places[0].dummy
        what = (f"{count} dumm{'y' if count == 1 else 'ies'} of {MESSAGES} messages in {dummy.directory}, as "
                f"{account_of(dummy.uid).user}")
    console.say(f"{what}, {trial.jobs} at once, for {trial.seconds:.1f} s")
    said = f"{_many(document['rounds'], 'round')}, {document['rounds_a_second']} a second"
    if trial.deleted:
        said += f"; {_many(trial.deleted, 'message')} deleted"
    console.say(said + (f", {trial.delivered} put back" if trial.delivered else ""))
    if document["phases"]:
        console.table({"phase": "PHASE", "count": "COUNT", "median_ms": "MEDIAN ms", "worst_ms": "WORST ms"},
                      [{"phase": name, **row} for name, row in document["phases"].items()])
    for what, row in document["waits"].items():
        console.say(f"waited for the {what} {_many(row['count'], 'time')}, {row['seconds']} s in all; the longest was "
                    f"{row['worst_ms']} ms: {row['worst_for']}")
    if trial.busy:
        console.say(f"turned away {_many(trial.busy, 'time')}, because another session went on for longer than "
                    f"lock_timeout, {trial.options.lock_timeout} s", "yellow")
    if trial.killed:
        console.say(f"killed in an update {_many(trial.killed, 'session')}; the next one found "
                    f"{_many(trial.settled['done'], 'update')} done, and {trial.settled['undone']} not begun")
    for fault in document["faults"]:
        console.say(f"FAULT: {fault['what']}" + (f" ({fault['times']} times)" if fault["times"] > 1 else ""), "red")
    if not trial.faults:
        tried = trial.rounds or trial.killed
        console.say("no fault was found" if tried else "nobody got in", "green" if tried else "yellow")
