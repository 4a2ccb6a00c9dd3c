"""Usage:
  popperctl trace show [-C FILE] [--json] SESSION [FILE]...
  popperctl trace explain [-C FILE] [--user USER] [--address ADDRESS]
                          [--since WHEN] [--until WHEN] [--outcome HOW]
                          [--json] [SESSION] [FILE]...
  popperctl trace follow [-C FILE] [--user USER] [--address ADDRESS]
                         [--sessions] [--json] [FILE]
  popperctl trace replay [-C FILE] [--password-file FILE] [--pace] [--delete]
                         [--json] SESSION HOST:PORT [FILE]...
  popperctl trace on [-C FILE] [--for TIME] [--json] USER...
  popperctl trace off [-C FILE] [--json] USER...
  popperctl trace list [-C FILE] [--json]
  popperctl trace [-C FILE] [--user USER] [--address ADDRESS] [--since WHEN]
                  [--until WHEN] [--outcome HOW] [--json] [FILE]...

Shows the sessions in a trace, popper's or Qpopper's: each in a line, one of them
as a conversation, what went wrong, and as they come. Has the sessions of a user,
or from an address, traced for a while. A FILE may be packed; without one it is
the trace of the configuration.

Options:
  -C FILE               configuration, /etc/popper.conf if not given
  --user USER           only sessions of this user
  --address ADDRESS     only from this address, or network: 192.0.2.0/24
  --since WHEN          only behind this: 2026-11-24, "2026-11-24 18:00", 18:00,
                        today, yesterday, 7d, 12h or 10m (ago)
  --until WHEN          only before this; a day is meant to its end
  --outcome HOW         only what ended so: quit, closed, timeout, signal, refused
                        (or auth, in-use, sys/temp, sys/perm), error, maildrop,
                        open, unknown
  --sessions            a line for each session when it has ended
  --for TIME            how long: 30s, 10m, 2h, up to 7d; 10m if not given
  --password-file FILE  its first line is the password; otherwise it is asked for
  --pace                with the pauses that the client made
  --delete              have QUIT delete what the session deleted
  --json                one JSON document; "follow": one in each line

Examples:
  popperctl trace on joe --for 1h
  popperctl trace follow --user joe
  popperctl trace --outcome timeout --since today
  popperctl trace show 4711
  popperctl trace explain --user joe /var/log/popper.trace.1.gz /var/log/popper.trace
  popperctl trace replay 4711 newhost:110
"""

import datetime
import difflib
import os

from popper.account import plain_name
from popper.admin import following, replay, times, traceview, usage, watches
from popper.admin.console import Failed, settled
from popper.admin.explain import History, explain
from popper.admin.kept import Kept
from popper.admin.logs import STANDARD_INPUT
from popper.admin.tracelines import Reading, instant
from popper.admin.traces import OUTCOMES, Choice, Named, Session, Sessions, exact, network_of, sessions

MOST_NAMES = 20                # sessions that one name may mean, of those that are listed


def run(arguments: dict, console) -> int:
    options = settled(arguments)
    for word, act in COMMANDS.items():
        if arguments[word]:
            return act(arguments, options, console)
    return _table(arguments, options, console)


def _table(arguments: dict, options, console) -> int:
    _check_command(arguments)
    choice, table = _choice(arguments), Sessions()
    traces = Traces(_files(arguments["FILE"], options), table, console)
    of_daemon = False
    with Kept(lambda row: {**row, "session": table.name_of(row["session"], row["start"])}) as found:
        for session in filter(choice.fits, traces):
            found.add(session.begun, traceview.row(session, session.mark))
            of_daemon = of_daemon or session.is_of_daemon
        console.table(traceview.columns(of_daemon), found, lambda row: traceview.colour(row["outcome"]))
    return traces.status


def _show(arguments: dict, options, console) -> int:
    session, name = _find(arguments, options, console)
    if console.json:
        console.document(traceview.document(session, name))
        return os.EX_OK
    for text, colour in traceview.screen(session, name):
        console.say(text, colour)
    return os.EX_OK


def _explain(arguments: dict, options, console) -> int:
    text, names, wanted = arguments["SESSION"], arguments["FILE"], None
    if text is not None and Named.SHAPE.fullmatch(text) and not os.path.exists(text):
        wanted = Named(text)
    elif text is not None:
        names = [text, *names]
    choice, table = _choice(arguments), Sessions(lambda mark: True)
    history, told, fine = History(table), [], 0
    closely = wanted or choice.user or console.json
    traces = Traces(_files(names, options), table, console)
    for session in traces:
        findings = explain(session, history)
        if choice.fits(session) and (wanted is None or wanted.fits(session.mark, session.begun)):
            findings = [finding for finding in findings if closely or not finding.usual]
            fine += not findings
            if findings or wanted or console.json:       # of a year's sessions most are fine, and not to be kept
                told.append((session, findings))
    if wanted and not told:
        raise _no_session(text)
    told.sort(key=lambda pair: pair[0].begun)
    console.document([_explained(session, findings, table) for session, findings in told])
    for session, findings in told:
        if findings or wanted:
            console.say(traceview.brief(session, table.name(session)))
        for finding in findings:
            console.say("    " + finding.sentence(table.name), "yellow" if finding.fault else "")
        if wanted and all(finding.usual for finding in findings):
            console.say("    Nothing went wrong.", "green")
    every = fine + sum(bool(findings) for _, findings in told)
    if not wanted and not every:
        console.say("There is no such session: was it traced (popperctl trace list), and does the mail program get "
                    "here?")
    elif not wanted:
        console.say(f"{every} session{'s' * (every != 1)}; there is nothing to say of {fine}")
    return traces.status


def _explained(session: Session, findings: list, table: Sessions) -> dict:
    return {**traceview.row(session, table.name(session)), "findings": [
        {"kind": finding.kind, "fault": finding.fault, "text": finding.sentence(table.name),
         "session": table.name(finding.other) if finding.other else None} for finding in findings]}


def _follow(arguments: dict, options, console) -> int:
    choice = _choice({**arguments, "--since": None, "--until": None, "--outcome": None})
    _check_name(*arguments["FILE"])
    path = arguments["FILE"][0] if arguments["FILE"] else options.trace or options.trace_file
    following.follow(path, choice, arguments["--sessions"], console)
    return os.EX_OK


def _replay(arguments: dict, options, console) -> int:
    replay.place(arguments["HOST:PORT"])     # a mistake should show before much is read
    session, name = _find(arguments, options, console)
    return replay.replay(session, name, arguments, console)


COMMANDS = {"show": _show, "explain": _explain, "follow": _follow, "replay": _replay, "on": watches.on,
            "off": watches.off, "list": watches.list_}


# -- what is read ------------------------------------------------------------------------------------------------------

def _files(names: "list[str]", options) -> "list[str]":
    """The traces to read: those that are named, else those of the configuration that are there."""
    for name in names:
        close = difflib.get_close_matches(name, usage.commands(__doc__), 1)
        if close and not os.path.exists(name):
            meant = [form for form in usage.forms(__doc__) if form.split()[2] == name]
            raise Failed(f"expected: {meant[0]}" if meant else
                         f'{name}: No such file or directory; did you mean "trace {close[0]}"?', os.EX_USAGE)
        _check_name(name)
    if names:
        return _different(names)
    places = list(dict.fromkeys(filter(None, (options.trace, options.trace_file))))
    found = _different(place for place in places if os.path.exists(place))
    if not found:
        raise Failed(f"{' and '.join(places)}: No such file or directory; popperctl trace on USER makes one",
                     os.EX_NOINPUT)
    return found


def _check_name(name: str = STANDARD_INPUT) -> None:
    """A user may have been meant."""
    if name != STANDARD_INPUT and plain_name(os.fsencode(name)) and "." not in name and not os.path.exists(name):
        raise Failed(f"{name}: No such file or directory; for the sessions of a user: --user {name}", os.EX_NOINPUT)


def _check_command(arguments: dict) -> None:
    """What is no file may be a command with an option that it does not take."""
    for name in arguments["FILE"][:1]:
        meant = [form for form in usage.forms(__doc__) if usage.command(form) == name]
        taken = sorted({option for form in meant for option in usage.options(form)})
        given = [option for option, value in arguments.items()
                 if option.startswith("-") and value not in (None, False) and option not in taken]
        if meant and given and not os.path.exists(name):
            raise Failed(f'{given[0]} is not an option of "trace {name}"; there is {", ".join(taken)}', os.EX_USAGE)


def _different(names) -> "list[str]":
    """Each file once."""
    return list({os.path.realpath(name): name for name in names}.values())


class Traces:
    """The sessions in files, as an iterable, or those of one mark; what could not be read is told. status: then,
    that of the command."""

    def __init__(self, names: "list[str]", table: Sessions, console, mark: "str | None" = None) -> None:
        self.reading = Reading(names, mark, complain=console.complain)
        self.table = table
        self.console = console
        self.status = os.EX_OK

    def __iter__(self):
        reading = self.reading
        with self.console.progress("reading", sum(source.size for source in reading.sources)) as bar:
            reading.tick = bar.add
            yield from sessions(reading, self.table)
        if reading.odd:
            self.console.complain(f"{reading.odd} of {reading.lines} lines are none of a trace, and were left out")
        if reading.broken:
            self.status = os.EX_DATAERR


def _find(arguments: dict, options, console) -> "tuple[Session, str]":
    """The one session that is named, with its lines, and its name."""
    text = arguments["SESSION"]
    try:
        wanted = Named(text)
    except ValueError:
        raise Failed(f'"{text}" is no session; write 4711, or 4711@18:22:48, as popperctl trace prints it',
                     os.EX_USAGE) from None
    table, found = Sessions(lambda mark: mark == wanted.mark), []
    for session in Traces(_files(arguments["FILE"], options), table, console, wanted.mark):
        if wanted.fits(session.mark, session.begun):
            found.append(session)
            for each in found[-2:] if len(found) > 1 else ():
                each.lines = []              # nobody can tell which of them is meant; the names will do
    if not found:
        raise _no_session(text)
    if len(found) > 1:
        names = [f"{each.mark}@{exact(each.begun)}" for each in found[:MOST_NAMES]]
        raise Failed(f"{text} may be any of {len(found)} sessions; name one of them: {', '.join(names)}"
                     + (", ..." if len(found) > MOST_NAMES else ""), os.EX_DATAERR)
    return found[0], table.name(found[0])


def _no_session(text: str) -> Failed:
    return Failed(f"there is no session {text}; popperctl trace lists them", os.EX_DATAERR)


# -- what is wanted of it ----------------------------------------------------------------------------------------------

def _choice(arguments: dict) -> Choice:
    """The sessions that the options choose."""
    if arguments["--user"] == "":
        raise Failed('"" is no name of a user', os.EX_USAGE)
    since, until = times.between(arguments["--since"], arguments["--until"], datetime.datetime.now())
    try:
        if arguments["--address"] is not None:
            network_of(arguments["--address"])
    except ValueError:
        raise Failed(f'"{arguments["--address"]}" is neither an address nor a network', os.EX_USAGE) from None
    try:
        return Choice(arguments["--user"] or "", arguments["--address"] or "", arguments["--outcome"] or "",
                      since and instant(since), until and instant(until))
    except ValueError:
        raise Failed(f'"{arguments["--outcome"]}" is no outcome; there is {", ".join((*OUTCOMES, *Choice.CODES))}',
                     os.EX_USAGE) from None
