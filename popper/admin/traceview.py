"""Sessions of a trace for the eye: rows of a table, the conversation as a screen of lines, and lines as they come."""

from popper.admin.tracelines import lasting, moment
from popper.admin.traces import CLOSED, ERROR, MAILDROP, MOST_LINES, OPEN, OUTCOMES, REFUSED, TIMEOUT, Session

LONG = 1.0                     # seconds that somebody would notice
ALIKE = ("Msg ", "Deleting message ", "Bulletin ")       # lines of which there may be thousands in a row
ALIKE_MOST = 5                 # of them that are shown
CLIENT, SERVER, NOTE = "client", "server", "note"
MARKS = {CLIENT: "C:", SERVER: "S:", NOTE: "  "}

COLUMNS = {"session": "SESSION", "pid": "PROCESS", "start": "START", "user": "USER", "peer": "PEER", "ended": "ENDED",
           "commands": "COMMANDS", "sent": "SENT", "longest": "WAITED", "longest_for": "FOR"}


def columns(of_daemon: bool) -> "dict[str, str]":
    """Those of a table: processes are in it where the names of sessions, or of some, do not tell them."""
    return {key: title for key, title in COLUMNS.items() if key != "pid" or of_daemon}


def called(session: Session, name: str) -> str:
    """A session by its name, and by its process where that is another number."""
    return f"{name}, process {session.process}" if session.is_of_daemon and session.process else name


def row(session: Session, name: str) -> dict:
    """A session in the table, or for a program."""
    return {"session": name, "pid": session.process, "start": moment(session.begun),
            "end": None if session.outcome == OPEN else moment(session.last), "seconds": round(session.seconds, 3),
            "user": session.user or None, "peer": session.host or session.address or None, "host": session.host or None,
            "address": session.address or None, "logged_in": session.logged_in is not None,
            "ended": ended(session), "outcome": session.outcome, "code": session.code or None,
            "commands": session.commands, "received": session.received, "sent": session.sent,
            "longest": round(session.longest[0], 3), "longest_for": session.longest[1] or None,
            "waits": {what: round(seconds, 3) for what, seconds in session.waits.items()}}


def ended(session: Session) -> str:
    """How it ended, in a word or two."""
    return f"{session.outcome} ({session.code})" if session.outcome == REFUSED and session.code else session.outcome


def colour(outcome: str) -> str:
    """Of a session that ended so."""
    return {REFUSED: "red", ERROR: "red", MAILDROP: "red", TIMEOUT: "yellow", CLOSED: "yellow"}.get(outcome, "")


def brief(session: Session, name: str) -> str:
    """A session in one line, for those that come one by one."""
    wait = f", waited {lasting(session.longest[0])} for {session.longest[1]}" if session.longest[0] >= LONG else ""
    return (f"{moment(session.begun):%Y-%m-%d %H:%M:%S}  {called(session, name):>7}  {session.user or '-'} from "
            f"{session.host or session.address or '-'}: {ended(session)} after {lasting(session.seconds)}, "
            f"{session.commands} commands, {session.sent} octets sent{wait}")


# -- lines -------------------------------------------------------------------------------------------------------------

def said(text: str, ours: bool) -> "tuple[str, str]":
    """By whom a line was said, and what."""
    if text.startswith('Received: "'):
        return CLIENT, text[11:-1] if text.endswith('"') else text[11:]
    if text.startswith(("+OK", "-ERR ")):
        return SERVER, text
    if not ours and ": -ERR " in text:       # Qpopper logs a refusal once, popper the reply besides
        return SERVER, "-ERR " + text.partition(": -ERR ")[2]
    return NOTE, text


def live(when: float, text: str, session: Session) -> str:
    """A line as it comes."""
    who, words = said(text, session.ours)
    return f"{_clock(when)}  {session.mark:>7}  {session.user or '-':<12}  {MARKS[who]} {words}"


def conversation(session: Session) -> "list[dict]":
    """The lines of a session that kept them: when, gap (seconds since the line before), who, text, waits
    [(seconds, what for), ...] that end with this line."""
    again = Session(session.mark, session.lines[0][0] if session.lines else session.begun, session.ours)
    found = []
    for when, text in session.lines:
        before, last = dict(again.waits), again.last
        again.take(when, text)
        # The last line adds all up; it is no wait.
        waits = [] if text.startswith("Ended ") else [
            (round(seconds - before.get(what, 0.0), 3), what) for what, seconds in again.waits.items()
            if seconds > before.get(what, 0.0)]
        who, words = said(text, session.ours)
        found.append({"when": when, "gap": round(max(0.0, when - last), 3), "who": who, "text": words, "waits": waits})
    return found


def screen(session: Session, name: str):
    """Yield (text, colour) for each line of what `show` shows."""
    peer = f"{session.host} ({session.address})" if session.host != session.address else session.address
    yield (f"{called(session, name)}: {session.user or 'nobody'} from {peer or 'somewhere'}, "
           f"{moment(session.begun):%Y-%m-%d %H:%M:%S} to {moment(session.last):%H:%M:%S}", "")
    code = f" ({session.code})" if session.outcome == REFUSED and session.code else ""
    how = "its end is not in the trace" if session.outcome == OPEN else f"ended {OUTCOMES[session.outcome]}"
    yield (f"{how}{code}; {session.commands} commands, {session.received} octets received, "
           f"{session.sent} sent", "")
    waits = sorted(((seconds, what) for what, seconds in session.waits.items() if seconds >= 0.0005), reverse=True)
    yield "waited: " + (", ".join(f"{what} {seconds:.3f} s" for seconds, what in waits) or "for nothing"), ""
    yield "", ""
    run = 0
    turns = conversation(session)
    for turn, following in zip(turns, [*turns[1:], None]):
        kind = next((beginning for beginning in ALIKE if turn["text"].startswith(beginning)), "")
        if turn["who"] == NOTE and kind:
            run += 1
            more = following is not None and following["text"].startswith(kind)
            if run > ALIKE_MOST:
                if not more:
                    yield f"{'':24}    ... {run - ALIKE_MOST} more of these", ""
                    run = 0
                continue
            run = run if more else 0
        for seconds, what in turn["waits"]:
            if seconds >= LONG:
                yield f"{'':12}  {'':8}  -- {lasting(seconds)}, {what} --", "yellow"
        gap = f"+{turn['gap']:.3f}" if turn["gap"] >= 0.0005 else ""
        yield (f"{_clock(turn['when'])}  {gap:>8}  {MARKS[turn['who']]} {turn['text']}",
               "red" if turn["text"].startswith("-ERR ") else "")
    if session.left_out:
        yield "", ""
        yield (f"{session.left_out} lines are left out: texts of messages"
               + (f", and all behind the first {MOST_LINES}" if len(session.lines) >= MOST_LINES else ""), "")


def document(session: Session, name: str) -> dict:
    """What `show` gives to a program."""
    return {**row(session, name), "left_out": session.left_out,
            "lines": [{**turn, "when": moment(turn["when"]),
                       "waits": [{"seconds": seconds, "for": what} for seconds, what in turn["waits"]]}
                      for turn in conversation(session)]}


def _clock(when: float) -> str:
    return moment(when).time().isoformat("milliseconds")
