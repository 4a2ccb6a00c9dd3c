"""The program popper, as popperctl runs it: where it is, its own check of a configuration, its start as a daemon."""

import difflib
import os
import re
import shutil
import subprocess
import sys

from popper.admin.console import Failed
from popper.admin.control import Control, NotRunning
from popper.options import CONFIG, DIRECTIVES

NAME = "popper"


def program() -> str:
    """The path of the program that was installed with this popperctl, else what PATH has. Raises Failed."""
    beside = os.path.join(os.path.dirname(os.path.realpath(sys.argv[0])), NAME)
    found = beside if os.path.isfile(beside) and os.access(beside, os.X_OK) else shutil.which(NAME)
    if not found:
        raise Failed(f"there is no program {NAME} in {os.path.dirname(beside)}, nor in PATH", os.EX_UNAVAILABLE)
    return found


def complaint(file: "str | None", called: str = "") -> str:
    """What `popper --check` says of a configuration file, "" when that is no mistake.

    file: None for what is used when none is named; called: the name that it is to have in what is said.
    """
    words = [program(), "--check", *(["-C", file] if file else [])]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="backslashreplace")
    if not done.returncode:
        return ""
    said = done.stderr.strip().removeprefix(f"{NAME}: ") or f"{words[0]} --check ended with status {done.returncode}"
    return said.replace(file, called) if file and called else said


def hint(mistake: str) -> str:
    """Which directive somebody may have meant by one that is none; "": the mistake is another."""
    unknown = re.search(r'unknown directive "([^"]*)"', mistake)
    close = difflib.get_close_matches(unknown[1].lower(), DIRECTIVES, 1) if unknown else []
    return f"did you mean {close[0]}?" if close else ""


def start(file: "str | None", control: Control, console) -> int:
    """Have the daemon run, unless it runs already. -> exit status: the program's own, which has said why."""
    try:
        now = control.status()
        if now["state"] == "running":
            console.say(f"{line(now)} already")
            if other := another_file(file, now):
                console.complain(other)
            return os.EX_OK
    except NotRunning:
        pass
    # Its complaint is its own, on our standard error. Standard input tells popper how it was started: not by inetd.
    words = [program(), "--daemon", *(["-C", os.path.abspath(file)] if file else [])]
    console.flush()
    status = subprocess.run(words, stdin=subprocess.DEVNULL).returncode
    if status:
        return status if status > 0 else os.EX_SOFTWARE
    try:
        now = control.status()
    except NotRunning:
        now = {"state": "not running"}
    if now["state"] != "running":            # or it is another one, that is ending, who answers
        raise Failed(f"{words[0]} was started, but does not answer at {control.path}; its log may say why",
                     os.EX_UNAVAILABLE)
    console.say(line(now))
    return os.EX_OK


def line(now: dict) -> str:
    """That a daemon runs, of what it said of itself."""
    return f"popper {now['version']} runs, process {now['pid']}, on {', '.join(now['listening']) or 'no address'}"


def same_file(named: "str | None", told: str) -> bool:
    """Whether the configuration that a daemon told of is the file of -C."""
    return not told or os.path.realpath(told) == os.path.realpath(named or CONFIG)


def another_file(named: "str | None", now: dict) -> str:
    """That -C names another file than the daemon reads, "" when it does not."""
    if not named or same_file(named, now["configuration"]):
        return ""
    return f"the server that runs, process {now['pid']}, reads {now['configuration']}, not {named}"


def check_file(named: "str | None", now: dict) -> None:
    """Failed when -C names another file than the daemon reads: not that server is meant."""
    if other := another_file(named, now):
        raise Failed(other, os.EX_USAGE)


def sessions(count: int) -> str:
    """So many sessions that go on."""
    return "1 session goes on" if count == 1 else f"{count} sessions go on"
