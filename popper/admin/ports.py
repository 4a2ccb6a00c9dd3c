"""Whether the server could listen where `bindto` tells it to: each address is tried that it does not hold already."""

import errno
import os
import socket

from popper.admin.control import Control, NotRunning
from popper.admin.console import Failed
from popper.errors import ConfigError
from popper.listeners import listen, name_of, place_of

SUPER = ("inetd", "xinetd", "systemd", "tcpserver", "tcpsvd", "init")     # who may start popper
LISTENING = "0A"               # state of a socket in /proc/net/tcp, proc(5)
TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def found(options, asked: Control):
    """Yield (what is wrong, what to do, whether it must be mended) for each address that is not to be had.

    asked: where the server answers, if it runs; what it holds is not tried. Nobody is listened to: what could be had is
    closed at once.
    """
    now, unknown = _running(asked)
    held, opened, tried = now["listening"], [], []
    try:
        for address, port in options.bindto:
            names = _names(address, port) if port else []
            if ours := set(names) & set(held):
                tried.extend(ours)
                continue
            try:
                opened.append(listen(address, port))
                tried.append(name_of(place_of(opened[-1])))
            except ConfigError as mistake:
                yield _told(mistake, port, _collide(names, tried, port),
                            [each for each in held if _collide(names, [each], port)], now, unknown)
    finally:
        for each in opened:
            each.close()


def _running(asked: Control) -> "tuple[dict, str]":
    """What the server says of itself, as far as it concerns addresses, and why that is not known, or ""."""
    try:
        return asked.status(), ""
    except NotRunning:
        return {"listening": ()}, ""
    except Failed as trouble:
        return {"listening": ()}, trouble.text


def _told(mistake: ConfigError, port: int, twice: bool, ours: "list[str]", now: dict, unknown: str):
    """What to say of an address that is not to be had. twice: bindto has this port before; ours: what the server holds
    that is in its way."""
    number = getattr(mistake.__context__, "errno", 0)
    if number == errno.EACCES and os.geteuid() != 0:
        return f"{mistake}; whether the server can, only root may try", "", False
    if number != errno.EADDRINUSE:
        return str(mistake), "", True
    if twice:
        return f"{mistake}: an address before it in bindto has that port already", "", True
    if ours:
        return (f"{mistake}: the server that runs, process {now['pid']}, has {', '.join(ours)}, which it gives up only "
                "when it ends", "popperctl stop, then popperctl start", True)
    name, pid = _listener(port)
    if name in SUPER:
        return f"{name}, process {pid}, listens there; that is right where it starts popper", "", False
    if unknown:
        return f"{mistake}; whether that is popper itself cannot be told ({unknown})", "", False
    who = f"{name}, process {pid}," if name else "something else"
    return f"{mistake}: {who} listens there", "", True


def _names(address: str, port: int) -> "list[str]":
    """What a daemon calls the places where it may listen for the sake of one address."""
    if not address:
        return [name_of(("::", port)), name_of(("0.0.0.0", port))]
    try:
        places = socket.getaddrinfo(address, port, 0, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)
    except OSError:
        return []
    return [name_of(place[:2]) for *_, place in places[:1]]


def _collide(names: "list[str]", others: "list[str]", port: int) -> bool:
    """Whether nobody can listen at one of these names beside one of the others."""
    every = {name_of(("::", port)), name_of(("0.0.0.0", port))}
    same = {each for each in others if _port(each) == port}
    return bool(same and every.intersection(names)) or bool(same & {*names, *every})


def _port(name: str) -> int:
    port = name.rpartition(":")[2]
    return int(port) if port.isdigit() else 0


# -- who listens, as far as the system tells ---------------------------------------------------------------------------

def _listener(port: int) -> "tuple[str, int]":
    """(name, number) of a process that listens at a port; ("", 0) where that is not to be seen: root sees all."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port)}
    for pid in sorted(map(int, filter(str.isdigit, os.listdir("/proc")))) if wanted else ():
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}") in wanted:
                    with open(f"/proc/{pid}/comm", errors="backslashreplace") as comm:
                        return comm.read().strip(), pid
        except OSError:
            continue                         # it has ended, or is somebody else's
    return "", 0


def _inodes(port: int):
    """The sockets that listen at a port."""
    for table in TABLES:
        try:
            with open(table) as file:
                rows = [line.split() for line in file]
        except OSError:
            continue
        for row in rows[1:]:
            if row[3] == LISTENING and int(row[1].rpartition(":")[2], 16) == port:
                yield row[9]
