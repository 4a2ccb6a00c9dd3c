"""Usage:
  popperctl bulletin add [-C FILE] [-b DIR] [-s TEXT] [--from ADDRESS]
                         [--group GROUP] [--number N] [--json] [FILE]
  popperctl bulletin list [-C FILE] [-b DIR] [--json]
  popperctl bulletin show [-C FILE] [-b DIR] N
  popperctl bulletin preview [-C FILE] [-b DIR] N USER
  popperctl bulletin check [-C FILE] [-b DIR] [--json]
  popperctl bulletin edit [-C FILE] [-b DIR] N [FILE]
  popperctl bulletin withdraw [-C FILE] [-b DIR] N
  popperctl bulletin resend [-C FILE] [-b DIR] N [USER...]
  popperctl bulletin reach [-C FILE] [-b DIR] [--json] N

Bulletins: one message that each user gets once, at the next login.
The text comes from FILE, from standard input (or FILE -), or from your editor.

  add       publish text, or a message with a header, under the next number
  list      which bulletins there are, and how many users have had each
  show      one bulletin, for reading
  preview   one bulletin as it goes into the mailbox of USER
  check     everything that is wrong; the status is 65 when something is
  edit      put other text in its place; who has had it does not get it again
  withdraw  take it away; who has had it keeps it
  resend    to everybody, under a new number; or once more to each USER
  reach     who has had it, and who has not (root only)

Options:
  -C FILE             configuration, /etc/popper.conf if not given
  -b DIR              directory of bulletins, if not that of the configuration
  -s, --subject TEXT  the subject; asked for when the text has none
  --from ADDRESS      the sender, if not postmaster of this host
  --group GROUP       only for this group of the system, or ALL
  --number N          a number above all that were used
  --json              one JSON document instead

Examples:
  popperctl bulletin add -s "Down on Sunday, 6:00 to 9:00" sunday.txt
  popperctl bulletin reach 23
"""

import contextlib
import datetime
import email.utils
import grp
import os

from popper.account import plain_name
from popper.admin import compose, editor, inspection, readers
from popper.admin.audience import Audience, ahead
from popper.admin.compose import Unfit
from popper.admin.console import Failed, settled
from popper.admin.shelf import Shelf
from popper.bulletins import addressed, group_of
from popper.popbull import DIGITS_MOST

COMMANDS = ("add", "list", "show", "preview", "check", "edit", "withdraw", "resend", "reach")


def run(arguments: dict, console) -> int:
    options = settled(arguments)
    if arguments["-b"]:
        options.set("bulletins", os.path.abspath(arguments["-b"]))
    if not options.bulletins:
        raise Failed(f'no directory of bulletins: put a line "bulletins /var/spool/bulletins" into '
                     f'{arguments["-C"] or "/etc/popper.conf"}, or say -b DIR', os.EX_CONFIG)
    if arguments["check"]:
        return check(options, console)
    with Shelf(options.bulletins) as shelf:
        desk = Desk(options, console, shelf)
        command = next(command for command in COMMANDS if arguments[command])
        try:
            return getattr(desk, command)(arguments)
        except Unfit as unfit:
            raise Failed(f"{arguments['FILE'] or 'the text'}: {unfit}", os.EX_DATAERR) from None


class Desk:
    """Where the administrator works: one method for each command, arguments -> exit status."""

    def __init__(self, options, console, shelf: Shelf) -> None:
        self.options = options
        self.console = console
        self.shelf = shelf
        self.host = options.hostname or os.uname().nodename
        self.audience = Audience(options, console, shelf)
        self.most = options.bulletin_max + 1     # octets that are read: one more than would do

    # -- looking -----------------------------------------------------------------------------------------------------

    def list(self, _) -> int:
        found = self.shelf.bulletins()
        who = self.audience.survey() if found else []
        asked = [reader for reader in who if not reader.trouble]
        rows = [self._described(number, name, asked) for number, name in found]
        if self.console.json:
            self.console.document(rows)
        elif not rows:
            self.console.say(f"no bulletins in {self.shelf.directory}")
        else:
            for row in rows:
                row["day"] = row["date"].astimezone().strftime("%Y-%m-%d %H:%M") if row["date"] else None
            self.console.table({"number": "NUMBER", "day": "DATE", "octets": "OCTETS", "had": "HAD",
                                "subject": "SUBJECT", "name": "NAME"}, rows,
                               lambda row: "red" if row["octets"] is None else "")
            silent = len(who) - len(asked)
            if os.geteuid() != 0 and not asked:
                self.console.say("HAD: how many users have had it; only root can see that")
            else:
                self.console.say(f"HAD: of {len(who)} users who may log in"
                                 + (f"; {silent} could not be asked" if silent else ""))
        return os.EX_OK

    def _described(self, number: int, name: str, asked) -> dict:
        row = {"number": number, "name": name, "date": None, "octets": None, "subject": "", "had": None}
        if asked:
            row["had"] = sum(reader.outlook(number, set()) == readers.HAD for reader in asked)
        try:
            octets = self.shelf.bulletin(name, self.options.bulletin_max)
            draft = compose.read(octets)
            row.update(octets=len(octets), subject=draft.subject)
            with contextlib.suppress(ValueError, OverflowError):
                row["date"] = email.utils.parsedate_to_datetime(draft.value(b"date"))
        except (Failed, Unfit) as trouble:
            row["subject"] = f"({trouble})"
        return row

    def show(self, arguments) -> int:
        _, name = self.shelf.find(arguments["N"])
        octets = self.shelf.bulletin(name, self.options.bulletin_max)
        self.console.say(f"File: {self.shelf.path(name)}")
        try:
            draft, text = compose.read(octets), compose.readable(octets)
            for field in (b"From", b"Date", b"Subject"):
                self.console.say(f"{field.decode()}: {draft.value(field.lower())}")
            self.console.say("")
        except Unfit:                        # then as it stands
            text = octets.decode("utf-8", "surrogateescape")
        for line in text.split("\n"):
            self.console.say(line.expandtabs())
        return os.EX_OK

    def preview(self, arguments) -> int:
        user = arguments["USER"][0]
        if plain_name(os.fsencode(user)) is None:
            raise Failed(f'"{user}" cannot be the name of a user', os.EX_NOUSER)
        number, name = self.shelf.find(arguments["N"])
        octets = addressed(self.shelf.bulletin(name, self.options.bulletin_max), user, self.host)
        known = [account for account in readers.accounts(self.options) if account.user == user]
        if not known:
            self.console.complain(f"{user} is nobody who may log in, as far as can be seen")
        elif any(not reader.member for reader in self.audience.survey(group_of(name), known)):
            self.console.complain(f"{user} does not get bulletin {number}: it is for the group {group_of(name)}")
        self.console.octets(octets)
        return os.EX_OK

    def reach(self, arguments) -> int:
        number, name = self.shelf.find(arguments["N"])
        who = self.audience.survey(group_of(name))
        newest = self.audience.newest()
        if os.geteuid() != 0 and all(reader.trouble for reader in who):
            raise Failed("only root can see who has had a bulletin", os.EX_NOPERM)
        rows = [{"user": reader.user, "state": reader.outlook(number, newest), "receipt": reader.receipt,
                 "trouble": reader.trouble} for reader in who]
        if not rows:
            raise Failed("nobody may log in, as far as can be seen", os.EX_UNAVAILABLE)
        self.console.table({"user": "USER", "state": f"BULLETIN {number}", "receipt": "HAS HAD UP TO",
                            "trouble": "TROUBLE"}, rows,
                           lambda row: {readers.HAD: "green", readers.UNKNOWN: "yellow"}.get(row["state"], ""))
        for line in self.audience.forecast(number, who):
            self.console.say(line)
        return os.EX_OK

    # -- changing ----------------------------------------------------------------------------------------------------

    def add(self, arguments) -> int:
        group = self._group(arguments["--group"])
        asked = _whole(arguments["--number"], "--number") if arguments["--number"] else 0
        if arguments["--subject"]:           # before anybody writes for an hour
            compose.encoded("Subject", arguments["--subject"])
        if arguments["--from"]:
            compose.address(arguments["--from"], self.host)
        who = self.audience.survey(group)
        audience = f"the members of {group}" if group not in (None, "ALL") else "every user"
        given = compose.template(arguments["--subject"] or "", arguments["--from"] or
                                 compose.default_sender(self.host), audience)
        with editor.written(self.console, arguments["FILE"], given, self.most,
                            "popperctl bulletin add") as octets:
            draft = compose.read(octets)
            subject = (arguments["--subject"] or "").strip()
            if not subject and not draft.subject:
                subject = editor.asked(self.console, "Subject: ")
            if not subject and not draft.subject:
                raise Failed("a bulletin needs a subject: say -s TEXT", os.EX_USAGE)
            number, name = self._publish(draft, asked, who, group, compose.slug(subject or draft.subject), subject,
                                         arguments["--from"] or "")
        return self._tell(number, name, who)

    def edit(self, arguments) -> int:
        number, name = self.shelf.find(arguments["N"])
        before = self.shelf.bulletin(name, self.options.bulletin_max)
        text = compose.editable(before)
        given = before if text is None else text + compose.NOTE
        with editor.written(self.console, arguments["FILE"], given, self.most,
                            f"popperctl bulletin edit {number}") as octets:
            draft = compose.read(octets) if text is None else compose.revised(before, octets)
            after = compose.compose(draft, number, self.host, datetime.datetime.now().astimezone())
            if after == before or octets == text:
                self.console.say(f"bulletin {number} is as it was")
                return os.EX_OK
            with self.shelf.locked():
                if self.shelf.bulletin(name, self.options.bulletin_max) != before:
                    raise Failed(f"{name} was changed by somebody else meanwhile", os.EX_TEMPFAIL)
                self._place(name, after)
        self.console.say(f"bulletin {number} has the new text: {self.shelf.path(name)}")
        who = self.audience.survey(group_of(name))
        had = sum(reader.outlook(number, set()) == readers.HAD for reader in who)
        if had or any(reader.trouble for reader in who):
            self.console.say((f"{had} of {len(who)} users have had the old text, and do not get the new one" if had else
                              "who has had the old text does not get the new one")
                             + f"; popperctl bulletin resend {number} sends it to everybody")
        return os.EX_OK

    def withdraw(self, arguments) -> int:
        number, name = self.shelf.find(arguments["N"])
        with self.shelf.locked():
            self.shelf.note(self.shelf.last())
            kept = self.shelf.withdraw(name)
        self.console.say(f"bulletin {number} is withdrawn; its text is in {self.shelf.path(kept)}")
        self.console.say("who has had it keeps it, and its number is not used again")
        return os.EX_OK

    def resend(self, arguments) -> int:
        number, name = self.shelf.find(arguments["N"])
        if arguments["USER"]:
            return self._resend_to(arguments["USER"], number, name)
        draft = compose.read(self.shelf.bulletin(name, self.options.bulletin_max))
        draft.envelope = b""
        draft.fields = [field for field in draft.fields if field[0] not in (b"date", b"message-id")]
        rest = name.partition(".")[2]
        who = self.audience.survey(group_of(name))
        group = None if rest else self._group(None)
        new, copy = self._publish(draft, 0, who, group, rest or compose.slug(draft.subject))
        return self._tell(new, copy, who)

    def _resend_to(self, users: "list[str]", number: int, name: str) -> int:
        known = {account.user: account for account in readers.accounts(self.options)}
        strangers = [user for user in users if user not in known]
        if strangers:
            raise Failed(f"nobody who may log in: {', '.join(strangers)}", os.EX_NOUSER)
        status = os.EX_OK
        for reader in self.audience.survey(group_of(name), [known[user] for user in users]):
            told = self._hindrance(reader, number)
            if not told and self.audience.last_of(reader) >= number:
                told = readers.turn_back(known[reader.user], self.options, number - 1)
            if told:
                status = os.EX_DATAERR
                self.console.complain(f"{reader.user}: {told}")
            else:
                self.console.say(f"{reader.user} gets bulletin {number} at the next login")
        return status

    def _hindrance(self, reader, number: int) -> str:
        """Why a user cannot be given a bulletin once more by setting his receipt back, or ""."""
        if reader.trouble or not reader.member:
            return reader.trouble or "is not in its group"
        last = self.audience.last_of(reader)
        later = [str(each) for each, _ in self.shelf.bulletins() if number < each <= last]
        return f"would get {', '.join(later)} with it; popperctl bulletin resend {number} sends it to everybody, " \
               "under a new number" if later else ""

    def _group(self, group: "str | None") -> "str | None":
        """The group that a new bulletin's name is to have, or Failed."""
        if not self.options.group_bulletins:
            if group not in (None, "ALL"):
                raise Failed("group_bulletins is off in the configuration, so everybody would get it; put a line "
                             '"group_bulletins yes" there', os.EX_CONFIG)
            return None
        if group in (None, "ALL"):
            return "ALL"
        try:
            grp.getgrnam(group)
        except KeyError:
            raise Failed(f'there is no group "{group}"', os.EX_NOUSER) from None
        if "." in group or "/" in group:
            raise Failed(f'"{group}" cannot be part of the name of a bulletin', os.EX_DATAERR)
        return group

    def _tell(self, number: int, name: str, who) -> int:
        """Say what was made, and to whom it will go."""
        path = self.shelf.path(name)
        self.console.document({"number": number, "path": path, "users": self.audience.counts(number, who)})
        self.console.say(f"bulletin {number} is {path}")
        for line in self.audience.forecast(number, who):
            self.console.say(line)
        return os.EX_OK

    # -- numbers and places ------------------------------------------------------------------------------------------

    def _publish(self, draft, asked: int, who, group: "str | None", rest: str, subject: str = "", sender: str = ""):
        """Give a draft the number that was asked for, or with 0 the next one, and put it in place; -> number, name."""
        with self.shelf.locked():
            number = self.shelf.next(asked, *ahead(who, self.shelf.last()))
            octets = compose.compose(draft, number, self.host, datetime.datetime.now().astimezone(), subject, sender,
                                     group if group != "ALL" else "")
            name = f"{number}.{group}.{rest}" if group else f"{number}.{rest}"
            self._place(name, octets, number)
        return number, name

    def _place(self, name: str, octets: bytes, number: int = 0) -> None:
        """Put a bulletin in place that the server will take. number: of a new one."""
        if compose.count(octets) != 1:
            raise Unfit(f"there are {compose.count(octets)} messages in it; a bulletin is one")
        if len(octets) > self.options.bulletin_max:
            raise Unfit(f"it has more than {self.options.bulletin_max} octets, which is bulletin_max")
        if number:
            self.shelf.note(number)
        self.shelf.place(name, octets, self.options.bulletin_max)


def check(options, console) -> int:
    """All that is wrong with the directory and its files."""
    rows = inspection.faults(options)
    try:
        with Shelf(options.bulletins) as shelf:
            rows += _of_receipts(options, console, shelf)
    except Failed:
        pass                                 # the server would not take the directory, which is said already
    if rows or console.json:
        console.table({"name": "NAME", "what": "WHAT IS WRONG", "remedy": "WHAT TO DO"}, rows,
                      lambda row: "red" if row["fault"] else "")
    if not any(row["fault"] for row in rows):
        console.say(f"{options.bulletins}: nothing has to be mended")
        return os.EX_OK
    return os.EX_DATAERR


def _of_receipts(options, console, shelf: Shelf):
    """Receipts above all numbers that were used: their users would not get what comes next."""
    names, most = ahead(Audience(options, console, shelf).survey(), shelf.last())
    if names:
        yield {"name": ".popbull", "fault": not shelf.counter(),
               "what": f"{names} had bulletins up to {most}, and does not get any up to that number",
               "remedy": f"popperctl bulletin add --number {most + 1}, next time; or remove that .popbull"}


def _whole(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and text.strip("0")):
        raise Failed(f'{what}: "{text}" is not a number above 0', os.EX_USAGE)
    return int(text) if len(text) <= DIGITS_MOST else 10 ** DIGITS_MOST      # which is refused as too long
