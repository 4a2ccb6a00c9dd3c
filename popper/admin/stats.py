"""Usage:
  popperctl stats [-C FILE] [--since WHEN] [--until WHEN] [--user USER]...
                  [--top N] [--json | --csv | --prometheus] [--output FILE]
                  [--html FILE] [FILE]...

Sums up what logs say of logins: of popper's, of Qpopper's, of Dovecot's. A FILE
is what syslog wrote, packed or not, or a trace file; "-" is standard input, and
"journal" asks journalctl. Without a FILE: what there is of mail.log, syslog and
their like in /var/log, and the trace file of the configuration; else the journal.

Options:
  -C FILE        configuration, /etc/popper.conf if not given
  --since WHEN   from then on: 2026-11-24, "2026-11-24 18:00", 18:00, today,
                 yesterday, 7d, 12h or 10m (ago)
  --until WHEN   up to then; a day is meant to its end
  --user USER    of this user only; may be given more than once
  --top N        so many rows in each table; 10 if not given, 0 for all
  --json         one JSON document, with everything
  --csv          a line for each user and day
  --prometheus   metrics, for the textfile collector of the node exporter
  --output FILE  where JSON, CSV or metrics go; the file is replaced at once
  --html FILE    write a page with plots; matplotlib must be installed

Examples:
  popperctl stats --since 7d
  popperctl stats --user joe /var/log/mail.log*
  popperctl stats --since today --prometheus --output /var/lib/prometheus/node-exporter/popper.prom
  popperctl stats --since 30d --html /srv/intranet/pop3.html journal
"""

import contextlib
import datetime
import json
import os

from popper.admin import exports, logins, logs, plots, report, sums, times
from popper.admin.console import Failed, settled

TOP = 10

DAYS = {"day": "DAY", "users": "USERS", "sessions": "SESSIONS", "polls": "POLLS", "failures": "FAILED",
        "deleted": "DELETED", "deleted_octets": "OCTETS", "left": "LEFT", "left_octets": "OCTETS"}
CLOCK = {"hour": "HOUR", "sessions": "SESSIONS", "polls": "POLLS", "failures": "FAILED", "deleted": "DELETED",
         "deleted_octets": "OCTETS", "polled_octets": "OCTETS POLLED"}
USERS = {"user": "USER", "sessions": "SESSIONS", "failures": "FAILED", "deleted": "DELETED", "deleted_octets": "OCTETS",
         "left": "LEFT", "left_octets": "OCTETS", "addresses": "ADDRESSES"}
GROWING = {"user": "USER", "grown_octets": "GROWN BY", "grown_days": "IN DAYS", "grown_octets_a_day": "A DAY",
           "left_octets": "OCTETS NOW"}
POLLING = {"user": "USER", "polls": "POLLS", "polls_an_hour": "AN HOUR", "polled_octets": "OCTETS POLLED",
           "left": "LEFT", "left_octets": "OCTETS"}
ADDRESSES = {"address": "ADDRESS", "failures": "FAILED", "probes": "PROBES", "names": "NAMES", "last": "LAST"}


def run(arguments: dict, console) -> int:
    now = datetime.datetime.now()
    since, until = times.between(arguments["--since"], arguments["--until"], now)
    asked = _top(arguments["--top"])
    top = TOP if asked is None else asked or None
    form = next((name for name in ("--csv", "--prometheus", "--json") if arguments[name]), "")
    output, page = arguments["--output"], arguments["--html"]
    if output and not form:
        raise Failed("--output is for --json, --csv or --prometheus; --html names a file of its own", os.EX_USAGE)
    if page:
        plots.need()
    for path in filter(None, (output, page)):
        exports.check_place(path)
    found, reading = _read(arguments, console, since, until)
    if page:
        exports.write(page, [report.report(found, reading, top, now)])
        if not form:
            console.say(f"{page}: {_summary(found)}")
    if form:
        _export(form, output, found, reading, asked or None, top, console)
    elif not page:
        _show(found, reading, top, console)
    return os.EX_DATAERR if reading.broken else os.EX_OK


def _read(arguments: dict, console, since: "datetime.datetime | None",
          until: "datetime.datetime | None") -> "tuple[sums.Sums, logs.Reading]":
    names = arguments["FILE"]
    if arguments["-C"] or not names:
        options = settled(arguments)
        names = names or logs.usual(options.trace)
    sources = [logs.Source(name) for name in dict.fromkeys(names)]
    users, found = set(arguments["--user"]), sums.Sums()
    total = sum(source.size for source in sources)
    with console.progress("reading", total) if total else contextlib.nullcontext() as bar:
        reading = logs.Reading(sources, logins.WORDS, since, bar.add if bar else lambda octets: None, console.complain)
        for line in reading:
            if (since and line.when < since) or (until and line.when >= until):
                continue
            event = logins.event(line)
            if event is not None and (not users or event.user in users):
                found.add(line.when, event)
    return found, reading


# -- options -----------------------------------------------------------------------------------------------------------

def _top(text: "str | None") -> "int | None":
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise Failed(f'--top: "{text}" is no number of rows', os.EX_USAGE)
    return int(text)


# -- what is told ------------------------------------------------------------------------------------------------------

def _export(form: str, output: "str | None", found: "sums.Sums", reading, asked: "int | None", top: "int | None",
            console) -> None:
    """What programs read. asked: how many rows were asked for, None for all; top: how many a person would see."""
    if form == "--json" and not output:
        console.document(exports.document(found, reading, asked))
        return
    if form == "--json":
        blocks = [(json.dumps(exports.document(found, reading, asked), indent=2, default=_as_json) + "\n").encode()]
    elif form == "--csv":
        blocks = exports.comma_separated(found)
    else:
        blocks = [exports.metrics(found, reading, top)]
    if output:
        exports.write(output, blocks)
    else:
        for block in blocks:
            console.octets(block)


def _as_json(value: "datetime.datetime | datetime.date") -> str:
    return value.isoformat()


def _show(found: "sums.Sums", reading, top: "int | None", console) -> None:
    """The tables, for a person; of days the latest."""
    console.say(_summary(found))
    users, days, addresses = found.user_rows(), found.day_rows(), found.address_rows()
    for title, titles, rows in (
            ("Days", DAYS, days[-top:] if top else days),
            ("Hours of the day", CLOCK, [row for row in found.clock_rows() if any(map(row.get, sums.COUNTS))]),
            ("Users who deleted most", USERS, sums.by_users(users)[:top]),
            ("Mailboxes that grew most", GROWING, sums.by_growth(users)[:top]),
            ("Mail left on the server: whose polls cost most", POLLING, sums.by_polling(users)[:top]),
            ("Failed logins by address", ADDRESSES, addresses[:top])):
        if rows:
            console.say("")
            console.say(title)
            console.table(titles, rows)
    notes = list(_notes(found, reading))
    for note in [""] * bool(notes) + notes:
        console.say(note)


def _summary(found: "sums.Sums") -> str:
    if not found.first:
        return "no login and no session is told of"
    totals = found.totals()
    return (f"{found.first} to {found.last}: {_many(totals['sessions'], 'session')} of "
            f"{_many(totals['users'], 'user')}, {_many(totals['failures'], 'failed login')}, "
            f"{_many(totals['probes'], 'probe')}; "
            f"{_many(totals['deleted'], 'message')} of {totals['deleted_octets']} octets deleted, "
            f"{_many(totals['left'], 'message')} of {totals['left_octets']} octets left")


def _notes(found: "sums.Sums", reading):
    yield (f"{_many(reading.lines, 'line')}, {reading.octets} octets, read of "
           f"{', '.join(source.name for source in reading.sources) or 'nothing: all logs are older'}")
    if reading.odd:
        yield f"{_many(reading.odd, 'line')} looked like a login and could not be read"
    if found.estimated:
        yield f"{_many(found.estimated, 'session')} of Dovecot's: octets deleted and left are an estimate"
    if found.forgotten:
        yield "too many names or addresses of failed logins to list them all"


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
