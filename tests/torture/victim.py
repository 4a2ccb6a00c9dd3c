"""A process that holds one POP session, to be killed or made to fail. Words say what is special about it:

    chunk=OCTETS     steps of an update are so small, that even small mailboxes take several
    place=DIR        where XTND XMIT keeps what it is sent
    short=CALL:N     the N-th os.CALL of more than one octet writes one octet, as a full disk or a signal has it
    fsize=OCTETS     no file may grow beyond (RLIMIT_FSIZE; Python ignores SIGXFSZ, so calls fail with EFBIG)

It is forked from a process that has imported all of popper, for starting Python takes longer than a session. From the
reading of its configuration on it is what a super-server starts, `popper -C CONF --stdio`.
"""

import os
import resource
import signal
import sys
import traceback

from popper import auth, channel, guessers, inetd, journal, login, peer, separate, serve, submit, tally       # noqa: F401
from popper.auth import crypt, file          # noqa: F401
from popper.cli import main
from popper.storage import keeper, redo      # noqa: F401

STANDARD = (0, 1, 2)                         # descriptors; on others there are files


def forked(conf: str, words: "tuple[str, ...]", standard: "tuple[int, int, int]", go: "int | None" = None) -> int:
    """The process number of a new session on these descriptors. go: it waits until it can read from there."""
    child = os.fork()
    if child:
        return child
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number, descriptor in enumerate(standard):
            os.dup2(descriptor, number)
        if go is not None:
            os.dup2(go, 3)
        os.closerange(3 if go is None else 4, 256)
        if go is not None:
            os.read(3, 1)
            os.close(3)
        for word in words:
            action, value = word.split("=", 1)
            {"chunk": _chunk, "place": _place, "short": _short, "fsize": _fsize}[action](value)
        sys.argv[0] = "popper"
        main(["-C", str(conf), "--stdio"], False)
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(0)


def _chunk(octets: str) -> None:
    redo.CHUNK = int(octets)
    redo.PIECE = min(int(octets), redo.PIECE)


def _place(directory: str) -> None:
    submit.PLACE = directory


def _short(where: str) -> None:
    name, number = where.split(":")
    whole, left = getattr(os, name), [int(number)]

    def cut(descriptor, octets, *rest):
        if descriptor not in STANDARD:
            left[0] -= 1
            if left[0] == 0 and len(octets) > 1:
                octets = octets[:1]
        return whole(descriptor, octets, *rest)
    setattr(os, name, cut)


def _fsize(octets: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(octets), int(octets)))
