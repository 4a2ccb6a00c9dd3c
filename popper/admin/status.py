"""Usage:
  popperctl status [-C FILE] [--json | --prometheus] [--output FILE]

How the server is: since when it runs, where it listens, what its limits are and
what it has counted; then the sessions that are open, and the guessers of
passwords that are not forgotten yet. The status is 0 when it runs, 3 when it does not.
A server that is started by inetd for each connection cannot be asked.

Options:
  -C FILE        configuration, /etc/popper.conf if not given
  --json         one JSON document, with everything
  --prometheus   metrics, for the textfile collector of the node exporter
  --output FILE  where JSON or metrics go; the file is replaced at once

Examples:
  popperctl status
  watch popperctl status
  popperctl status --prometheus --output /var/lib/prometheus/node-exporter/popper-server.prom
"""

import datetime
import json
import os

from popper.admin import exports, gauges, server
from popper.admin.console import Failed
from popper.admin.control import NotRunning, control

NOT_RUNNING = 3                # LSB's: what `service popper status` is to give, and no status of sysexits.h
STATES = {"ending": "is ending"}
SESSIONS = {"pid": "PID", "user": "USER", "address": "ADDRESS", "name": "NAME", "state": "STATE", "when": "SINCE",
            "received": "RECEIVED", "sent": "SENT"}
GUESSERS = {"what": "GUESSER", "kind": "KIND", "failures": "FAILURES", "wait": "WAITS"}


def run(arguments: dict, console) -> int:
    form, output = "--prometheus" if arguments["--prometheus"] else "--json" * console.json, arguments["--output"]
    if output:
        if not form:
            raise Failed("--output is for --json or --prometheus", os.EX_USAGE)
        exports.check_place(output)
    try:
        now, stopped = control(arguments).status(), None
        if other := server.another_file(arguments["-C"], now):
            console.complain(other)
    except NotRunning as answer:
        now, stopped = {"state": "not running"}, answer
    if form == "--prometheus":
        _give(gauges.text(now), output, console)
    elif form and output:
        exports.write(output, [(json.dumps(_dated(now), indent=2, default=str) + "\n").encode()])
    elif form:
        console.document(_dated(now))
    elif stopped:
        console.say(stopped.text, "red")
    else:
        _show(now, console)
    return NOT_RUNNING if stopped else os.EX_OK


def _give(octets: bytes, output: "str | None", console) -> None:
    if output:
        exports.write(output, [octets])
    else:
        console.octets(octets)


def _dated(now: dict) -> dict:
    """What the daemon told, with times of the zone here in the place of seconds since 1970."""
    told = dict(now)
    if "since" in told:
        told["since"] = _when(told["since"]).isoformat()
        told["sessions"] = [{**each, "since": _when(each.get("since", 0)).isoformat()} for each in told["sessions"]]
    return told


def _when(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds).astimezone()


# -- for a person ------------------------------------------------------------------------------------------------------

def _show(now: dict, console) -> None:
    today = datetime.datetime.now().astimezone()
    ending = now["state"] != "running"
    console.say(f"popper {now['version']} {STATES.get(now['state'], 'runs')}, process {now['pid']}, "
                f"since {_when(now['since']):%Y-%m-%d %H:%M:%S} ({age(today.timestamp() - now['since'])})",
                "yellow" if ending else "green")
    for text, colour in _lines(now):
        console.say(text, colour)
    sessions = sorted(now["sessions"], key=lambda each: each.get("since", 0))
    for each in sessions:
        began = _when(each.get("since", 0))
        each["when"] = f"{began:%H:%M:%S}" if began.date() == today.date() else f"{began:%Y-%m-%d %H:%M}"
    guessers = sorted(now["guessers"], key=lambda each: -each.get("failures", 0))
    for each in guessers:
        each["failures"], each["wait"] = f"{each.get('failures', 0):.1f}", f"{each.get('wait', 0):.1f} s"
    for titles, rows, colour in ((SESSIONS, sessions, ""), (GUESSERS, guessers, "yellow")):
        if rows:
            console.say("")
            console.table(titles, rows, lambda row: colour)


def _lines(now: dict):
    """The lines below the first: (text, colour)."""
    limits, counters = now["limits"], now["counters"]
    yield f"configuration: {now['configuration'] or 'none'}", ""
    yield f"listening: {', '.join(now['listening']) or 'nowhere'}", ""
    for what, count, limit in (("sessions", len(now["sessions"]), "maxsessions"),
                               ("before login", now["strangers"], "maxstrangers")):
        most = limits.get(limit)
        yield f"{what}: {count}" + (f" of {most}" if most else ""), "red" if most and count >= most else ""
    if now["waiting"]:
        yield f"logins held back: {now['waiting']}", "yellow"
    others = [f"{limits[name]} {what}" for name, what in (("sameaddrmax", "from one address"), ("accepts", "a second"))
              if limits.get(name)]
    if others:
        yield f"connections at most: {', '.join(others)}", ""
    counted = {**dict.fromkeys(gauges.COUNTERS, 0), **counters}
    yield ("counted: {connections} connections, {logins} logins, {denied} denied, {received} octets received, "
           "{sent} sent".format(**counted)), ""
    away = {why: count for why, count in counters.get("turned_away", {}).items() if count}
    if away:
        yield "turned away: " + ", ".join(f"{count} by {why}" for why, count in away.items()), "yellow"


def age(seconds: float) -> str:
    """How long that is, in the two units that matter."""
    left, parts = max(0, int(seconds)), []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
