"""The table of groups, and what holds for all of them: help, complaints, exit statuses.

    popperctl mailbox repair -n FILE     word `mailbox` -> popper.admin.mailbox; docopt reads the line by its docstring
                                         -> run(arguments, console) -> exit status

Statuses are those of sysexits.h, 130 after Ctrl-C, and 141 when whoever read the output has gone.
"""

import difflib
import errno
import importlib
import os
import sys

from popper import VERSION
from popper.admin import usage
from popper.admin.console import Console, Failed, ReaderGone
from popper.errors import IN_USE, TEMPORARY, ConfigError, Refused
from popper.library import library

# word: (module in popper.admin, what `popperctl --help` says of it)
GROUPS: "dict[str, tuple[str, str]]" = {
    "start": ("start", "start the server, as a daemon"),
    "stop": ("stop", "stop it; sessions go on to their end"),
    "restart": ("restart", "put a new server in its place, and turn nobody away"),
    "reload": ("reload", "have it read its configuration"),
    "status": ("status", "who is logged in, limits, counters, guessers"),
    "config": ("config", "edit the configuration, check it, have it read"),
    "test": ("checkup", "look whether the configuration fits this system"),
    "bulletin": ("bulletin", "messages that every user gets once"),
    "mailbox": ("mailbox", "finish what was interrupted in mailboxes; test a spool"),
    "stats": ("stats", "what the logs say: who logs in, how often, what is left"),
    "trace": ("trace", "sessions as they were said, and what went wrong in them"),
}

HELP = """Usage:
  popperctl GROUP [COMMAND] [OPTION]... [ARGUMENT]...
  popperctl GROUP --help
  popperctl --version

Looks after popper, the POP3 server.

{groups}

Options of every command:
  -C FILE     configuration, /etc/popper.conf if not given
  --json      where a table is printed: one JSON document instead
  -h, --help  show the commands of a group, with examples

popperctl(8) is the manual.
"""

INTERRUPTED, READER_GONE = 130, 141          # 128 + SIGINT, 128 + SIGPIPE: as a shell tells of them
STATUSES = {
    errno.ENOENT: os.EX_NOINPUT, errno.ENOTDIR: os.EX_NOINPUT, errno.EISDIR: os.EX_NOINPUT,
    errno.EACCES: os.EX_NOPERM, errno.EPERM: os.EX_NOPERM, errno.EROFS: os.EX_CANTCREAT,
    errno.EAGAIN: os.EX_TEMPFAIL, errno.ETIMEDOUT: os.EX_TEMPFAIL, errno.ENOMEM: os.EX_TEMPFAIL,
}


def run() -> int:
    """The program: -> exit status."""
    status = main(sys.argv[1:], Console(sys.stdout, sys.stderr))
    try:
        sys.stdout.flush()
    except OSError:                          # told already; Python tries once more when it ends, and would complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def main(words: "list[str]", console: Console) -> int:
    """Do what a command line says; whatever stops it becomes one line on standard error and a status."""
    try:
        status = _dispatch(words, console)
        console.flush()
        return status
    except Failed as failed:
        console.complain(failed.text)
        return failed.status
    except ConfigError as mistake:
        console.complain(str(mistake))
        return os.EX_CONFIG
    except Refused as refused:
        console.complain(f"{refused.text} ({refused.reason})" if refused.reason else refused.text)
        return os.EX_TEMPFAIL if refused.code in (IN_USE, TEMPORARY) else os.EX_UNAVAILABLE
    except ReaderGone:
        return READER_GONE
    except OSError as error:
        console.complain(_said(error))
        return STATUSES.get(error.errno, os.EX_IOERR)
    except KeyboardInterrupt:
        return INTERRUPTED


def _dispatch(words: "list[str]", console: Console) -> int:
    before = words[:words.index("--")] if "--" in words else words
    wants_help = "-h" in before or "--help" in before or before[:1] == ["help"]
    word = _first_word(words[1:] if words[:1] == ["help"] else words)
    if not word and (wants_help or before == ["--version"]):
        console.say_all(_overview() if wants_help else f"popperctl {VERSION}")
        return os.EX_OK
    if not word:
        console.err.write(_overview() + "\n")
        return os.EX_USAGE
    if word not in GROUPS:
        raise Failed(f'"{word}" is not a group of commands; {_nearest(word)}', os.EX_USAGE)
    module = group(word)
    if wants_help:
        console.say_all(module.__doc__.strip())
        return os.EX_OK
    arguments = _arguments(word, module.__doc__, words)
    console.json = bool(arguments.get("--json"))
    return module.run(arguments, console)


def group(word: str):
    """The module behind a word of the table."""
    return importlib.import_module("popper.admin." + GROUPS[word][0])


def _first_word(words: "list[str]") -> str:
    """The first word that is neither an option nor the value of -C; "" when there is none."""
    value = False
    for word in words:
        if not value and (word == "-" or not word.startswith("-")):
            return word
        value = word == "-C"
    return ""


def _overview() -> str:
    longest = max(map(len, GROUPS), default=0)
    listed = "\n".join(f"  {word:{longest}}  {about}" for word, (_, about) in GROUPS.items())
    return HELP.format(groups=listed).rstrip()


def _arguments(word: str, text: str, words: "list[str]") -> dict:
    """What docopt makes of a command line, or Failed in words that say what was not understood."""
    try:
        docopt = library("docopt")
    except ImportError:
        raise Failed(f"docopt is missing for {sys.executable}: apt install python3-docopt, or "
                     f"{sys.executable} -m pip install docopt-ng", os.EX_UNAVAILABLE) from None
    try:
        return dict(docopt.docopt(text, words, False))
    except docopt.DocoptExit:
        raise Failed(_not_understood(word, text, words), os.EX_USAGE) from None


def _not_understood(word: str, text: str, words: "list[str]") -> str:
    """What is wrong with a line that docopt did not take, and the usage it should have followed, in one line."""
    rest = words[words.index(word) + 1:]
    command = _first_word(rest)
    known = usage.commands(text)
    if command not in known and all(map(usage.command, usage.forms(text))):
        asked = f'"{word} {command}" is not a command; ' if command else f"{word}: which command? "
        close = difflib.get_close_matches(command, known, 1)
        return asked + (f'did you mean "{word} {close[0]}"?' if close else _one_of(known))
    command = command if command in known else ""        # the group is a command itself
    forms = [form for form in usage.forms(text) if usage.command(form) == command]
    taken = {option for form in forms for option in usage.options(form)}
    synonyms = {other: option for option, other in usage.synonyms(text).items() if option in taken}
    names, given = {*taken, *synonyms}, []
    for option in words[:words.index("--")] if "--" in words else words:
        name = option.partition("=")[0]
        if not name.startswith("--"):
            continue
        meant = [name] if name in names else [one for one in names if one.startswith(name)]
        if len(meant) == 1:
            given.append(synonyms.get(meant[0], meant[0]))
        if not meant:
            close = difflib.get_close_matches(name, names, 1)
            called = f"{word} {command}".rstrip()
            return f'{name} is not an option of "{called}"; ' + (
                f"did you mean {close[0]}?" if close else _one_of(sorted(names)))
    fitting = [form for form in forms if set(given) <= set(usage.options(form))]
    return usage.clash(forms, list(dict.fromkeys(given))) or "expected: " + " or: ".join(fitting or forms)


def _one_of(words: "list[str]") -> str:
    return "there is " + ", ".join(words) if words else "there is none"


def _nearest(word: str) -> str:
    """What somebody may have meant by a word that is no group: a group, or a command of one."""
    close = difflib.get_close_matches(word, [*GROUPS, "help"], 1)
    if close:
        return f'did you mean "{close[0]}"?'
    inside = {command: f"{each} {command}" for each in GROUPS for command in usage.commands(group(each).__doc__)}
    close = difflib.get_close_matches(word, inside, 1)
    return f'did you mean "{inside[close[0]]}"?' if close else _one_of(list(GROUPS))


def _said(error: OSError) -> str:
    """An error of the system in one line."""
    what = f"{error.filename}: " if error.filename else ""
    hint = "; try as root" if error.errno in (errno.EACCES, errno.EPERM) and os.geteuid() != 0 else ""
    return f"{what}{error.strerror or error}{hint}"
