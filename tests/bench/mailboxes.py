"""Mailboxes to measure with: made once, the same on every machine, kept for the next time."""

import base64
import json
import math
import os
import random
from pathlib import Path

SHAPES = {"empty": (0, 0), "fetch": (200, 10_000_000), "large": (2000, 100_000_000), "big": (20_000, 1_000_000_000)}
LONGEST, SHORTEST = 4_000_000, 1500
HEADER = """\
From sender{n}@lists.example.net Mon Mar  4 10:{minute:02}:00 2024
Return-Path: <sender{n}@lists.example.net>
Received: from out.example.net (out.example.net [198.51.100.{small}])
\tby mx.example.org (Postfix) with ESMTPS id {n:010X}
\tfor <user@example.org>; Mon, 4 Mar 2024 10:{minute:02}:00 +0000
From: Sender Number {n} <sender{n}@lists.example.net>
To: user@example.org
Subject: measured mail, number {n}
Date: Mon, 4 Mar 2024 10:{minute:02}:00 +0000
Message-ID: <{n:08x}.{minute}@out.example.net>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="=_cut_here"

--=_cut_here
Content-Type: text/plain; charset=utf-8

"""
ATTACHED = b"""
--=_cut_here
Content-Type: application/octet-stream; name="f.bin"
Content-Transfer-Encoding: base64

"""
END = b"\n--=_cut_here--\n"


def mailbox(directory: Path, name: str) -> Path:
    """The mailbox of one of SHAPES; made when it is not there yet."""
    path = directory / f"{name}.mbox"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with open(part, "wb") as file:
            file.writelines(messages(*SHAPES[name]))
        os.replace(part, path)
    return path


def messages(count: int, octets: int):
    """Envelope, text and separator of each message; sizes are log-normal, so a few hold most of the octets."""
    chance = random.Random(4711)
    text, encoded = _prose(chance), _attachment(chance)
    sizes = [chance.lognormvariate(math.log(20000), 1.35) for _ in range(count)]
    for n, size in enumerate(sizes):
        header = HEADER.format(n=n, minute=n % 60, small=n % 250).encode()
        room = int(min(LONGEST, max(SHORTEST, size * octets / sum(sizes)))) - len(header)
        prose = _lines(chance, text, min(room, 3000 + n % 2000))
        attached = room - len(prose) - len(ATTACHED)
        yield header + prose
        if attached > 0:
            yield ATTACHED + _lines(chance, encoded, attached)
        yield END + b"\n"


def wire_replies(octets: bytes) -> "list[bytes]":
    """What a server must answer to RETR 1, RETR 2, ... of a mailbox like these, first lines apart."""
    replies = []
    for text in octets[:-2].split(b"\n\nFrom "):
        text = text.partition(b"\n")[2].replace(b"\n", b"\r\n") + b"\r\n"
        stuffed = text.replace(b"\r\n.", b"\r\n..")
        first = b"." if text.startswith(b".") else b""
        replies.append(b"+OK %d octets\r\n" % len(text) + first + stuffed + b".\r\n")
    return replies


def write_replies(octets: bytes, path: Path) -> None:
    """The same, end to end in a file, and beside it `PATH.json`: where each begins, and the end."""
    replies, offsets = wire_replies(octets) if octets else [], [0]
    for reply in replies:
        offsets.append(offsets[-1] + len(reply))
    path.write_bytes(b"".join(replies))
    Path(f"{path}.json").write_text(json.dumps(offsets))


def _prose(chance: random.Random) -> bytes:
    """Lines of words; some are empty, some are quoted, a few begin with a dot."""
    words = "mail server report meeting project letter so and of the to in is that it was for on are with as".split()
    lines = []
    for _ in range(20000):
        kind = chance.random()
        line = " ".join(chance.choices(words, k=chance.randint(4, 14)))
        lines.append("" if kind < 0.1 else f"> {line}" if kind < 0.2 else f".{line}" if kind < 0.21 else line + ".")
    return "\n".join(lines).encode() + b"\n"


def _attachment(chance: random.Random) -> bytes:
    encoded = base64.b64encode(chance.randbytes(57 * 90000))
    return b"".join(encoded[at:at + 76] + b"\n" for at in range(0, len(encoded), 76))


def _lines(chance: random.Random, text: bytes, size: int) -> bytes:
    """About so many octets of whole lines from somewhere in a text."""
    begin = text.find(b"\n", chance.randrange(max(1, len(text) - size - 20000))) + 1
    return text[begin:text.find(b"\n", begin + max(size, 1)) + 1]
