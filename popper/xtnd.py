"""XTND and its words: XMIT sends mail, XLST lists one header of every message (ucb-popper.md 7).

The second table, of the shape of the first one in `session`.
"""

from popper import wire
from popper.errors import Refused


def xmit(session, arguments) -> wire.Reply:
    if session.submission is None:
        raise Refused("Unable to send message")
    return wire.Reply(True, "Start sending the message.", sink=session.submission())


def xlst(session, arguments) -> wire.Reply:
    name = arguments[0].lower()
    if len(arguments) > 1:
        number = session.number(arguments[1])
        chosen = [(number, session.drop.entry(number))]
    else:
        chosen = session.drop.listed()
    return wire.Reply(True, "xlst command accepted; headers coming.", body=wire.blocks_of(
        line for number, entry in chosen for line in _matching(number, session.drop.store.header(entry), name)))


def _matching(number: int, header: bytes, name: bytes):
    """The first header line that begins with `name`, numbered, and its continuation lines, as wire lines."""
    lines = header.split(b"\n")
    for at, line in enumerate(lines):
        if line[:len(name)].lower() == name and line.rstrip(b"\r"):
            yield b"%d %s\r\n" % (number, line.rstrip(b"\r"))
            for more in lines[at + 1:]:
                if more[:1] not in (b" ", b"\t"):
                    return
                yield more.rstrip(b"\r") + b"\r\n"
            return


# word: (least arguments, most arguments, handler)
WORDS = {
    b"xmit": (0, 0, xmit),
    b"xlst": (1, 2, xlst),
    b"xlist": (1, 2, xlst),
}
