"""QUIT with messages to delete: how long it takes, what it needs meanwhile, and whether the right octets are left."""

import os
import re
import shutil
import threading
from pathlib import Path
from statistics import median

from client import clock, log_in

PIECE = 131072                               # octets moved at once by `Moving`
LOOKS = 0.0005                               # seconds between two looks at an update
# What is deleted: numbers, by the octets of each message.
DELETED = {
    "first 10": lambda sizes: range(1, 11),
    "first": lambda sizes: (1,),
    "a small one": lambda sizes: (1 + sizes.index(min(sizes[:20])),),
    "every other": lambda sizes: range(1, len(sizes) + 1, 2),
    "all": lambda sizes: range(1, len(sizes) + 1),
    "none": lambda sizes: (),
}
ENVELOPE = re.compile(rb"\n\nFrom ")         # in mailboxes of ours and of the others' scripts, nothing else is one
# What Dovecot adds to each header, and what it leaves of a mailbox without mail.
OF_DOVECOT = re.compile(rb"\n(?:Content-Length|X-IMAPbase|X-UID|Status):[^\n]*"
                        rb"|\AFrom MAILER_DAEMON [^\n]*\n(?s:.{,900})FOLDER INTERNAL DATA(?s:.{,900})\Z")


class Wrong(Exception):
    """A server deleted something else than it was told to."""


class Update:
    """Messages to delete, by number, and what is left without them. octets: of what is deleted; runs: the extents of
    what is left, in order."""

    def __init__(self, mailbox: Path, choose) -> None:
        self.mailbox = mailbox
        octets = mailbox.read_bytes()
        begins = [0] + [found.start() + 2 for found in ENVELOPE.finditer(octets)]
        extents = list(zip(begins, begins[1:] + [len(octets)]))
        self.count = len(extents)
        self.deleted = set(choose([end - begin for begin, end in extents]))
        self.runs = [extent for number, extent in enumerate(extents, 1) if number not in self.deleted]
        self.left = b"".join(octets[begin:end] for begin, end in self.runs)
        self.octets = len(octets) - len(self.left)

    def session(self, server, watch: "Watch | None" = None) -> float:
        """One session on a fresh mailbox that is on disk and in memory. -> seconds of its QUIT. Raises Wrong."""
        server.fill(self.mailbox)
        os.sync()
        client = log_in(server)
        count = int(client.command("STAT").split()[1])
        if count != self.count:
            raise Wrong(f"{server.name} finds {count} messages instead of {self.count}")
        for number in sorted(self.deleted):
            client.command(f"DELE {number}")
        if watch:
            watch.look()
            watch.start()
        begun = clock()
        client.command("QUIT")
        taken = clock() - begun
        client.close()
        if watch:
            watch.end()
        self.check(server.name, server.path)
        return taken

    def check(self, name: str, path: Path) -> None:
        """Every octet that was to stay is there, nothing else is, and no file of the update is left behind."""
        octets = path.read_bytes()
        if name.startswith("dovecot"):
            octets = OF_DOVECOT.sub(b"", octets)
        beside = [name for name in os.listdir(path.parent) if name.lstrip(".").startswith(path.name + ".")]
        if octets != self.left or beside:
            raise Wrong(f"{name} left {len(octets)} octets instead of these {len(self.left)}, and beside them {beside}")


class Moving:
    """Moving down what is to stay, cutting the file, one fsync: the least that an update in place can do. It locks
    nothing, and a crash spoils the mailbox."""

    name = "moving alone"

    def __init__(self, directory: Path) -> None:
        self.path = directory / "moving-alone"

    def stop(self) -> None:
        self.path.unlink(missing_ok=True)

    def session(self, update: Update) -> float:
        self.stop()
        shutil.copyfile(update.mailbox, self.path)
        os.sync()
        descriptor = os.open(self.path, os.O_RDWR)
        begun = clock()
        to = 0
        for at, end in update.runs:
            while at < end and at != to:
                moved = os.pwrite(descriptor, os.pread(descriptor, min(PIECE, end - at), at), to)
                at, to = at + moved, to + moved
            to += end - at
        if to < update.mailbox.stat().st_size:
            os.ftruncate(descriptor, to)
            os.fsync(descriptor)
        taken = clock() - begun
        os.close(descriptor)
        update.check(self.name, self.path)
        return taken


class Watch(threading.Thread):
    """Looks, again and again, at what an update needs. peak: octets of the largest of the server's processes; record:
    octets of disk that its record took at most. An open descriptor shows the record's size when it has no name any
    more."""

    def __init__(self, server) -> None:
        super().__init__()
        self.usage = server.usage
        self.path = server.path.with_name(f".{server.path.name}.redo")
        self.descriptor = -1
        self.peak = self.record = 0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(LOOKS):
            self.look()

    def end(self) -> None:
        self.over.set()
        self.join()
        self.look()
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def look(self) -> None:
        self.peak = max(self.peak, self.usage.peak())
        if self.descriptor < 0:
            try:
                self.descriptor = os.open(self.path, os.O_RDONLY)
            except OSError:
                return
        self.record = max(self.record, os.fstat(self.descriptor).st_blocks * 512)


def disk(directory: Path) -> str:
    """The file system of a directory, and what a sync costs there, as words."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    over = [words for words in mounts if directory.resolve().is_relative_to(words[1])]
    device, _, kind = max(over, key=lambda words: len(words[1]))[:3]
    path, times = directory / "popper-bench.sync", []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for _ in range(50):
            os.pwrite(descriptor, os.urandom(4096), 0)
            begun = clock()
            os.fdatasync(descriptor)
            times.append(clock() - begun)
    finally:
        os.close(descriptor)
        path.unlink()
    return f"{kind} on {device}, where fdatasync of 4 KB takes {median(times) * 1e3:.2f} ms"
