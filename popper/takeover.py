"""An upgrade in place: the process becomes the new program, with the same sockets, and all that goes on goes on.

What the new program is told stands in a file without a name, whose descriptor an environment variable gives it.
"""

import _signal
import _socket
import json
import os
import select
import time

from popper.crew import Line
from popper.listeners import adopt
from popper.peer import Finding
from popper.reception import Connection
from popper.sessions import Child, Sessions

VARIABLE = "POPPER_TAKEOVER"
LONGEST = 4096                 # octets of what it says
PATIENCE = 10                  # seconds for a program to check its configuration
FORM = 1                       # of what is told; a program that knows another one starts afresh. These stay in all:
                               # form, sessions, crew, listeners
CHILD = ("number", "pid", "slot", "user", "address", "name", "since", "asked")


def program() -> "list[str]":
    """How to start the program that is there now as this one was started: path and arguments."""
    import sys
    if os.path.isabs(sys.argv[0]) and os.access(sys.argv[0], os.X_OK):
        return sys.argv
    return [sys.executable, *sys.orig_argv[1:]]


def complaint_of(arguments: "list[str]") -> str:
    """What a program says of its configuration, and of itself, when it is asked to check; "" when all is well."""
    reader, writer = os.pipe()
    try:
        child = os.posix_spawn(arguments[0], [*arguments, "--check"], os.environ, file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2)])
    except OSError as error:
        os.close(reader)
        return f"{arguments[0]}: {error.strerror}"
    finally:
        os.close(writer)
    said, deadline = b"", time.monotonic() + PATIENCE
    while select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
        piece = os.read(reader, 4096)
        if not piece:
            break
        said = (said + piece)[:LONGEST]
    else:
        os.kill(child, _signal.SIGKILL)
        said = f"popper: {arguments[0]} --check says nothing".encode()
    os.close(reader)
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:       # it may have closed that, and go on
        if time.monotonic() >= deadline:
            os.kill(child, _signal.SIGKILL)
            said = f"popper: {arguments[0]} --check says nothing".encode()
        time.sleep(0.01)
    status = ended[1]
    complaint = " ".join(said.decode("utf-8", "replace").split()) or f"{arguments[0]} --check fails"
    return "" if status == 0 else complaint.partition(": ")[2] or complaint      # without its name


def leave_to(arguments: "list[str]", master) -> None:
    """Become that program. Raises OSError when it cannot be; then nothing has changed."""
    sessions, reception = master.sessions, master.reception
    told = {
        "form": FORM, "since": master.since, "last": reception.last, "counted": reception.counted,
        "turned_away": reception.turned_away, "counters": master.logins.counters,
        "listeners": [[spec if isinstance(spec, int) else list(spec), listener.fileno()]
                      for spec, listener in master.bound.items()],
        "sessions": sessions.descriptor,
        "children": [{**{name: getattr(child, name) for name in CHILD}, "raw_user": child.raw_user.decode("latin-1")}
                     for child in sessions.children.values()],
        "crew": [[line.pid, line.fileno()] for line in master.crew.values() if line is not reception.looker],
        "connections": [[each.number, each.front.pid, each.address, each.port, each.proxied,
                         None if each.finding is None else [each.finding.status, each.finding.name]]
                        for each in reception.connections.values()],
    }
    note = os.memfd_create("popper-takeover")
    os.write(note, json.dumps(told).encode())
    kept = [note, sessions.descriptor, *(fd for _, fd in told["crew"]),
            *(listener.fileno() for listener in master.bound.values())]
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGHUP, _signal.SIGTERM, _signal.SIGINT, _signal.SIGUSR2))
    for fd in kept:
        os.set_inheritable(fd, True)
    os.environ[VARIABLE] = f"{os.getpid()}:{note}"
    os.environb.update(master.notify.taken)
    try:
        os.execv(arguments[0], arguments)
    finally:                                 # only when that failed
        for name in (VARIABLE.encode(), *master.notify.taken):
            os.environb.pop(name, None)
        for fd in kept:
            os.set_inheritable(fd, False)
        os.close(note)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def told() -> "dict | None":
    """What a program that became this one has left, or None."""
    pid, _, number = os.environ.pop(VARIABLE, "").partition(":")
    os.unsetenv(VARIABLE)
    if pid != str(os.getpid()) or not number.isdigit():
        return None
    note = int(number)
    document = json.loads(os.pread(note, os.fstat(note).st_size, 0))
    os.close(note)
    left = [document["sessions"], *(fd for _, fd in document["crew"]), *(fd for _, fd in document["listeners"])]
    if document["form"] != FORM:
        for fd in left:                      # we are to have these ports ourselves
            os.close(fd)
        return None
    for fd in left:
        os.set_inheritable(fd, False)
    return document


def bound_of(document: dict) -> dict:
    """The listening sockets by what asked for them."""
    return {spec if isinstance(spec, int) else tuple(spec): adopt(fd) for spec, fd in document["listeners"]}


def sessions_of(document: dict, most: int) -> Sessions:
    sessions = Sessions(most, document["sessions"])
    for each in document["children"]:
        child = Child(each["number"], each["user"], each["raw_user"].encode("latin-1"), each["address"], each["name"],
                      each["asked"])
        child.pid, child.slot, child.since = each["pid"], each["slot"], each["since"]
        sessions.take_over(child)
    return sessions


def restore(document: dict, master) -> None:
    """The old fronts go on with their strangers, and end with the last of them."""
    reception = master.reception
    reception.last, reception.counted = document["last"], document["counted"]
    reception.turned_away.update(document["turned_away"])
    master.logins.counters.update(document["counters"])
    master.since = document["since"]
    for pid, fd in document["crew"]:
        master.join(Line(_socket.socket(fileno=fd), pid), reception.hear_front)
    sitting = {child.number for child in master.sessions.children.values()}
    for number, pid, address, port, proxied, finding in document["connections"]:
        connection = Connection(number, master.crew[pid], address, port, proxied)
        connection.finding = Finding(*finding) if finding else None          # then DNS is asked again
        reception.connections[number] = connection
        reception.crowd.come(number, address)
        if number in sitting:
            reception.crowd.known(number)
    for line in list(master.crew.values()):
        master.retire(line)
