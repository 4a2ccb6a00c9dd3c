"""What a session is doing when it is struck: the columns of the matrix."""

MAILBOX, PARCEL, RECEIPT = "spool/joe", "spool/.joe.pop", "tmp/joe.popbull"
BULLETIN = "7.text"


def message(number: int, octets: int, end: bytes = b"\n") -> bytes:
    """A message as it stands in a mailbox, its body of so many octets or a line more."""
    line = b"Line of message %d, and some more of it." % number
    body = end.join([line] * (octets // len(line) + 1))
    return end.join([b"From joe@example.org Thu Nov 19 10:%02d:00 2026" % number,
                     b"Message-ID: <%d@example.org>" % number, b"Content-Length: %d" % (len(body) + len(end)), b"",
                     body, b"", b""])


def messages(*sizes: int, end: bytes = b"\n") -> "list[bytes]":
    return [message(number, octets, end) for number, octets in enumerate(sizes, 1)]


ARRIVES = b"From soon@example.org Sat Nov 21 11:00:00 2026\nSubject: soon\n\nDelivered during the session.\n\n"
LETTER = b"To: jane@example.org\r\nSubject: sent\r\n\r\n" + b"A line of a letter that is sent.\r\n" * 200
NEWS = b"From root@example.org Fri Nov 20 12:00:00 2026\nSubject: news\n\nThe same for everybody.\n\n"
OLDER = message(9, 800)


class Call:
    """One session, struck from the reply to its login on. deleted: the numbers it deletes; chunk: the widest step of an
    update; arrives: mail that another host delivers between login and QUIT.

    before, after: the mailbox; clean: what it may be when nobody is at work on it; opened: what it may be when the
    login was answered with +OK; right: and when QUIT was.
    """

    opening = False                          # struck before the reply to the login too
    kept = False                             # the spool is not the user's, and a keeper holds the locks
    crashed: "Call | None" = None            # the call before it, which was killed with the mailbox in pieces
    directives: "dict[str, str]" = {}        # of popper.conf, {base} being a directory outside the place
    submits = b""                            # what XTND XMIT is given
    free = 3                                 # pages that are left where a disk is nearly full, lest it cannot be done

    def __init__(self, messages: "list[bytes]", deleted: "tuple[int, ...]" = (), chunk: int = 1200,
                 arrives: bytes = b"", **how) -> None:
        self.messages = messages
        self.deleted = deleted
        self.chunk = chunk
        self.arrives = arrives
        self.before = b"".join(messages)
        self.after = b"".join(text for number, text in enumerate(messages, 1) if number not in deleted)
        self.files = {MAILBOX: self.before}
        for name, value in how.items():
            setattr(self, name, value)

    @property
    def commands(self) -> bytes:
        """What the client sends once it is in."""
        return b"".join(b"DELE %d\r\n" % number for number in self.deleted) + b"QUIT\r\n"

    @property
    def clean(self) -> "tuple[bytes, ...]":
        return self.before, self.after

    @property
    def opened(self) -> "tuple[bytes, ...]":
        return self.before,

    @property
    def right(self) -> "tuple[bytes, ...]":
        return self.after,

    def finally_(self, late: bytes) -> "tuple[bytes, ...]":
        """What the mailbox may be when `late` was delivered and the next session has opened it, with room for all."""
        return tuple(octets + late for octets in self.clean)


class Submission(Call):
    """XTND XMIT."""

    submits = LETTER

    @property
    def commands(self):
        return b"XTND XMIT\r\n" + self.submits + b".\r\nQUIT\r\n"


class Repair(Call):
    """An opening after a crash."""

    opening = True

    def __init__(self, crashed: Call) -> None:
        super().__init__(crashed.messages)
        self.crashed = crashed
        self.chunk = crashed.chunk
        self.free = crashed.free
        self.before = self.after = crashed.after

    @property
    def opened(self):
        """A merge that cannot be finished now is undone: it may wait, and whoever has mail is let in."""
        return self.crashed.opened if isinstance(self.crashed, Merge) else super().opened

    @property
    def right(self):
        return self.crashed.right if isinstance(self.crashed, Merge) else super().right


class Bulletin(Call):
    """One bulletin is due. Whoever is next gets it when this session did not."""

    opening = True
    free = 6
    directives = {"bulletins": "{base}/bulletins", "popbull_dir": "{tmp}"}

    def __init__(self, messages: "list[bytes]", **how) -> None:
        super().__init__(messages, **how)
        self.after = self.before + NEWS
        self.files = self.files | {RECEIPT: b"6\n"}

    @property
    def opened(self):
        return self.clean

    right = opened

    def finally_(self, late):
        return self.before + NEWS + late, self.before + late + NEWS


class Merge(Call):
    """An older popper left mail in the session lock's file. A session that cannot put it in front lets in all the same,
    for deleting makes room; whoever is next does it."""

    opening = True
    free = 6

    def __init__(self, messages: "list[bytes]", **how) -> None:
        super().__init__(messages, **how)
        self.after = OLDER + self.before
        self.files = self.files | {PARCEL: OLDER}

    @property
    def opened(self):
        return self.clean

    right = opened

    def finally_(self, late):
        return self.after + late,


class Marking(Call):
    """Status: headers are written into what stays and was read."""

    free = 6
    directives = {"update_status": "yes"}

    def __init__(self, messages: "list[bytes]", deleted: "tuple[int, ...]", read: "tuple[int, ...]", **how) -> None:
        super().__init__(messages, deleted, **how)
        self.read = read
        self.unmarked = self.after
        marked = [text.replace(b"\n\n", b"\nStatus: RO\n\n", 1) if number in read else text
                  for number, text in enumerate(messages, 1)]
        self.after = b"".join(text for number, text in enumerate(marked, 1) if number not in deleted)

    @property
    def commands(self):
        return b"".join(b"RETR %d\r\n" % number for number in self.read) + super().commands

    @property
    def clean(self):
        return self.before, self.unmarked, self.after

    @property
    def right(self):
        return self.unmarked, self.after


FOUR = messages(*[900] * 4)
MERGE = Merge(FOUR[:2])
CALLS = {
    "opening": Call(FOUR[:2], opening=True),
    "UPDATE: first": Call(FOUR, (1,)),
    "middle": Call(FOUR, (2,)),
    "last": Call(FOUR, (4,)),
    "all": Call(FOUR, (1, 2, 3, 4)),
    "huge": Call(messages(300, 9000, 30000, 300), (2,), chunk=12288),
    "mail arrives": Call(FOUR[:3], (2,), arrives=ARRIVES),
    "by a keeper": Call(FOUR[:3], (2,), opening=True, kept=True),
    "finish an update": Repair(Call(FOUR, (2,))),
    "finish a merge": Repair(MERGE),
    "bulletin": Bulletin(FOUR[:2]),
    "merge": MERGE,
    "Status:": Marking(FOUR[:3], (2,), (1, 3)),
    "XMIT": Submission(FOUR[:1]),
}
