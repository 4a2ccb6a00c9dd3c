"""Who gets bulletins, and what each of them has had by his receipt: asked as the user, in a child that may be killed.

A home is its user's: what lies in it may be a link to somewhere, or a file system that never answers. So receipts are
read by a child with the user's uid and groups, which goes from one user to the next; one who does not answer is given
up, and another child goes on behind him. What is written is written by a child that has become the user for good.
"""

import json
import os
import pwd
import select
import signal

from popper import privilege
from popper.account import Account, plain_name
from popper.auth.file import account_of
from popper.auth.getpw import complaint_about
from popper.bulletins import is_member
from popper.errors import Denied, Refused
from popper.popbull import Popbull, popbull_path

PATIENCE = 10.0                # seconds that one user may take
HAD, DUE, NEW = "had it", "next login", "first login"
LEFT_OUT, OUTSIDE, UNKNOWN = "not sent", "not in group", "not known"
FIELDS = ("user", "receipt", "member", "trouble")


class Reader:
    """A user and what is known of him. receipt: the number up to which he had bulletins, None for no receipt yet;
    member: of the group that was asked about; trouble: why the receipt is not known, or ""."""

    def __init__(self, user: str, receipt: "int | None", member: bool, trouble: str = "") -> None:
        self.user = user
        self.receipt = receipt
        self.member = member
        self.trouble = trouble

    def outlook(self, number: int, newest: "set[int]") -> str:
        """How he stands to a bulletin. newest: those that somebody new gets."""
        if not self.member:
            return OUTSIDE
        if self.trouble:
            return UNKNOWN
        if self.receipt is None:
            return NEW if number in newest else LEFT_OUT
        return HAD if self.receipt >= number else DUE


def accounts(options) -> "list[Account]":
    """Everybody who may log in, as far as the modules of `auth` can be listed; the first that has a name decides."""
    found: "dict[str, Account | None]" = {}
    for module in options.auth:
        for user, account in LISTS.get(module, lambda options: ())(options):
            if plain_name(os.fsencode(user)) is not None:
                found.setdefault(user, account)
    return [account for account in found.values() if account is not None]


def _of_file(options):
    if not options.password_file:
        return
    with open(options.password_file, "rb") as file:
        lines = file.read().split(b"\n")
    for line in lines:
        fields = line.rstrip(b"\r").split(b":")
        if len(fields) > 1:
            user = os.fsdecode(fields[0])
            try:
                yield user, account_of(user, fields, options)
            except Denied:
                yield user, None


def _of_system(options):
    for known in pwd.getpwall():
        if complaint_about(known, None, options, 0):
            yield known.pw_name, None
        else:
            yield known.pw_name, Account(known.pw_name, known.pw_uid, known.pw_gid, known.pw_dir)


LISTS = {"file": _of_file, "getpw": _of_system, "pam": _of_system}         # by module of `auth`


# -- reading ---------------------------------------------------------------------------------------------------------

def survey(who: "list[Account]", options, group: "str | None" = None, tick=lambda: None) -> "list[Reader]":
    """What is known of each of these accounts, in order. group: asked about, None for everybody; tick: called for
    each."""
    found: "list[Reader]" = []
    while len(found) < len(who):
        rest = who[len(found):]
        for line in _told(lambda say: _ask_all(rest, options, group, say)):
            found.append(Reader(**dict(zip(FIELDS, json.loads(line)))))
            tick()
        if len(found) < len(who):
            found.append(Reader(who[len(found)].user, None, True, "no answer"))
            tick()
    return found


def _ask_all(who: "list[Account]", options, group: "str | None", say) -> None:
    for account in who:
        say(json.dumps(_ask(account, options, group)))


def _ask(account: Account, options, group: "str | None") -> tuple:
    """The FIELDS of one reader. Run by root this process takes his uid for a moment: for good would be a process for
    each, and it does nothing but open and read one file."""
    changes = os.geteuid() == 0 and account.uid is not None
    try:
        if changes:
            os.setgroups(privilege.groups_of(account.user, account.uid, account.gid))
            os.setegid(account.gid)
            os.seteuid(account.uid)
        elif account.uid not in (None, os.geteuid()):
            return account.user, None, True, "only root may look"
        member = group is None or bool(is_member(account, group))
        path = popbull_path(account, options)
        if not path:
            return account.user, None, member, "neither a home directory nor popbull_dir"
        try:
            return account.user, Popbull(path).read(), member, ""
        except Refused as refused:
            return account.user, None, member, refused.text
    except OSError as error:
        return account.user, None, True, error.strerror
    finally:
        if changes:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups([])


# -- writing ---------------------------------------------------------------------------------------------------------

def turn_back(account: Account, options, number: int) -> str:
    """Have the receipt of a user say that he had bulletins up to this number; -> what went wrong, or ""."""
    for line in _told(lambda say: say(json.dumps(_turn_back(account, options, number)))):
        return json.loads(line)
    return "no answer"


def _turn_back(account: Account, options, number: int) -> str:
    path = popbull_path(account, options)
    if not path:
        return "neither a home directory nor popbull_dir"
    try:
        if account.uid is not None:
            privilege.become(account.user, account.uid, account.gid)
        Popbull(path).write(number)
    except Refused as refused:
        return refused.text
    return ""


# -- children --------------------------------------------------------------------------------------------------------

def _told(act):
    """Yield the lines that act(say) says in a child, until it ends, or until it has said nothing for too long."""
    ear, mouth = os.pipe()
    child = os.fork()
    if not child:
        _end_with(act, ear, mouth)
    os.close(mouth)
    try:
        yield from _lines(ear)
    finally:
        os.close(ear)
        os.kill(child, signal.SIGKILL)
        # One that hangs in a file system may not even die; it is nobody's any more when we end.
        os.waitpid(child, os.WNOHANG)


def _lines(ear: int):
    """The lines that come, until the end or for as long as PATIENCE allows."""
    begun = b""
    while select.select([ear], [], [], PATIENCE)[0]:
        octets = os.read(ear, 65536)
        if not octets:
            return
        *whole, begun = (begun + octets).split(b"\n")
        yield from (line.decode() for line in whole)


def _end_with(act, ear: int, mouth: int) -> None:
    """What a child does; it never comes back."""
    status = os.EX_SOFTWARE
    try:
        os.close(ear)
        with open(mouth, "w", encoding="ascii") as out:
            act(lambda line: (out.write(line + "\n"), out.flush()))
        status = os.EX_OK
    finally:
        os._exit(status)
