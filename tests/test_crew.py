"""Lines to the crew: nothing sent down one ever waits, and no descriptor is left behind; and who is hired."""

import array
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import wait_until
from popper import crew
from popper.crew import DRAIN, Line, hire
from popper.handover import LARGEST, TROUBLE, pack, unpack
from popper.options import Options


@pytest.fixture
def ends():
    """A Line, and the socket at its other end."""
    before = len(os.listdir("/proc/self/fd"))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line = Line(ours, 4711)
    yield line, theirs
    line.close()
    theirs.close()
    assert len(os.listdir("/proc/self/fd")) <= before, "descriptors are left open"


def take(theirs):
    """(message, descriptors)"""
    octets, passed, _, _ = theirs.recvmsg(LARGEST, socket.CMSG_SPACE(64), socket.MSG_DONTWAIT)
    found = array.array("i")
    for _, _, data in passed:
        found.frombytes(data)
    return octets, list(found)


def test_messages_come_whole_and_in_order(ends):
    line, theirs = ends
    messages = [b"a", b"b" * 100000, b"c"]
    for each in messages[:2]:
        assert line.send(each)
    assert [take(theirs), take(theirs)] == [(each, []) for each in messages[:2]]
    for each in messages:
        theirs.send(each)
        assert line.receive() == (each, -1)
    assert line.receive() is None


def test_a_descriptor_goes_with_its_message_and_is_not_ours_any_more(ends):
    line, theirs = ends
    reader, writer = os.pipe()
    assert line.send(b"C", writer)
    with pytest.raises(OSError):
        os.fstat(writer)
    octets, (fd,) = take(theirs)
    os.write(fd, b"x")
    assert octets == b"C" and os.read(reader, 1) == b"x"
    os.close(fd)
    os.close(reader)


def test_what_cannot_go_waits_in_order_and_keeps_its_descriptors(ends):
    line, theirs = ends
    sent = 0
    while line.send(pack(b"C", b"%d" % sent, b"x" * 5000), os.open(os.devnull, os.O_RDONLY)):
        sent += 1
    assert 0 < sent < 200 and len(line.queue) == 1
    assert not line.send(b"T")               # not past what waits, though there may be room for it
    assert not line.flush()
    got = []
    while len(got) < sent + 2:
        octets, fds = take(theirs)
        got.append((octets[:1], unpack(octets)[:1], len(fds)))
        for fd in fds:
            os.close(fd)
        line.flush()
    assert got == [(b"C", [b"%d" % number], 1) for number in range(sent + 1)] + [(b"T", [], 0)]
    assert line.queue == [] and line.send(b"more")


def test_what_waits_is_closed_with_the_line(ends):
    line, theirs = ends
    while line.send(b"x" * 5000, os.open(os.devnull, os.O_RDONLY)):
        pass
    line.send(b"y", os.open(os.devnull, os.O_RDONLY))
    line.close()                             # the fixture counts
    assert line.queue == []


def test_a_process_that_has_ended_has_nothing_kept_for_it(ends):
    line, theirs = ends
    theirs.close()
    fd = os.open(os.devnull, os.O_RDONLY)
    assert line.send(b"C", fd) and line.queue == []
    with pytest.raises(OSError):
        os.fstat(fd)
    assert line.receive() == (b"", -1)


def test_too_many_descriptors_on_their_way_wait(ends, monkeypatch):
    line, _ = ends

    def sendmsg(*arguments):
        raise OSError(109, "Too many references: cannot splice")
    real, line.socket = line.socket, SimpleNamespace(sendmsg=sendmsg, close=lambda: None)
    fd = os.open(os.devnull, os.O_RDONLY)
    assert not line.send(b"C", fd) and line.queue == [(b"C", fd)]
    os.fstat(fd)
    line.socket = real
    assert line.flush()


def test_one_descriptor_is_taken_of_a_message_that_brings_many(ends):
    """What is room for one is, rounded up, room for two."""
    line, theirs = ends
    fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    for many in (2, 3):
        theirs.sendmsg([b"L"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds[:many]))])
        octets, fd = line.receive()
        assert octets == b"L" and fd >= 0
        os.close(fd)
    for fd in fds:
        os.close(fd)


def test_what_is_taken_is_closed_in_programs_that_are_run(ends):
    line, theirs = ends
    with open(os.devnull) as null:
        theirs.sendmsg([b"L"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null.fileno()]))])
    _, fd = line.receive()
    assert not os.get_inheritable(fd)
    os.close(fd)


def ended(line):
    """The exit status, when the process has ended."""
    _, status = wait_until(lambda: (lambda found: found if found[0] else None)(os.waitpid(line.pid, os.WNOHANG)))
    line.close()
    return os.waitstatus_to_exitcode(status)


def said(line):
    return wait_until(line.receive)[0]


def test_who_is_hired_has_its_line_and_the_standard_descriptors_and_no_more():
    secret = os.open(os.devnull, os.O_RDONLY)

    def work(theirs):
        theirs.send(b" ".join(b"%d" % int(fd) for fd in os.listdir("/proc/self/fd")
                              if os.path.exists(f"/proc/self/fd/{fd}")))
    line = hire(work)
    found = set(map(int, said(line).split()))
    assert secret not in found and len(found - {0, 1, 2}) == 1
    assert ended(line) == 0
    os.close(secret)


@pytest.mark.filterwarnings("ignore")
def test_who_stumbles_ends_and_does_not_come_back():
    assert ended(hire(lambda theirs: 1 / 0)) in (0, 1)


@pytest.mark.filterwarnings("ignore")
def test_who_stumbles_says_over_what():
    line = hire(lambda theirs: open("/no/such/file"))
    octets = said(line)
    assert octets[:1] == TROUBLE
    assert unpack(octets) == [b"FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file'"]
    assert ended(line) == 0


def test_a_front_that_cannot_give_up_its_rights_says_so_and_speaks_to_nobody(monkeypatch):
    def confine(ids, descriptors):
        raise PermissionError(1, "Operation not permitted")
    monkeypatch.setattr(crew.privilege, "confine", confine)
    front = crew.front(options(), "pop.example.org", (65534, 65534), 100, "")
    octets = said(front)
    assert octets[:1] == TROUBLE and unpack(octets) == [b"PermissionError: [Errno 1] Operation not permitted"]
    with call(front) as client:
        assert client.recv(100) == b""
    assert ended(front) == 0


def test_what_somebody_said_before_he_ended_is_heard_whatever_he_left_unread(ends):
    line, theirs = ends
    line.send(b"C")
    theirs.send(b"W")
    theirs.close()
    assert line.receive() == (b"W", -1)
    assert line.receive() == (b"", -1)


def test_who_is_hired_has_nothing_at_its_standard_descriptors(capfd):
    """A terminal is not for strangers, nor is a log."""
    line = hire(lambda theirs: theirs.send(" ".join(os.readlink(f"/proc/self/fd/{fd}") for fd in range(3)).encode()))
    assert said(line) == b"/dev/null /dev/null /dev/null"
    assert ended(line) == 0
    assert os.readlink("/proc/self/fd/1") != "/dev/null", "else this shows nothing"


def test_who_is_hired_ends_with_our_end_of_the_line():
    line = hire(lambda theirs: theirs.recv(1))
    line.socket.close()
    assert ended(line) == 0


def options(**settings):
    one = Options()
    for name, value in settings.items():
        setattr(one, name, value)
    return one


def call(front, number=1):
    ours, theirs = socket.socketpair()
    front.send(pack(b"C", b"%d" % number, b"192.0.2.1", b"40000", b"0"), theirs.detach())
    ours.settimeout(30)
    return ours


def test_a_front():
    front = crew.front(options(), "pop.example.org", (65534, 65534), 100, "Started by the tests")
    with call(front) as client:
        assert client.recv(1000).startswith(b"+OK UCB Pop server")
        status = Path(f"/proc/{front.pid}/status").read_text()
        limits = Path(f"/proc/{front.pid}/limits").read_text().splitlines()
        if os.geteuid() == 0:
            assert "Uid:\t65534\t65534\t65534\t65534" in status and "Groups:\t \n" in status
            assert os.listdir(f"/proc/{front.pid}/root") == []
        assert "NoNewPrivs:\t1" in status
        assert [line.split()[3:5] for line in limits if line.startswith("Max open files")] == [["100", "100"]]
        assert [line.split()[2:4] for line in limits if line.startswith("Max processes")] == [["0", "0"]]
        client.sendall(b"USER mrose\r\nPASS x\r\n")
        octets, fd = wait_until(front.receive)
        assert octets[:1] == b"L" and fd >= 0
        os.close(fd)
        front.send(pack(b"T", b"1"))
        front.send(DRAIN)
        assert ended(front) == 0


def test_a_front_without_descriptors_goes_on():
    front = crew.front(options(), "pop.example.org", (65534, 65534), 12, "")
    clients = [call(front, number) for number in range(1, 21)]
    lost = set()
    while len(lost) < 10:
        octets = said(front)
        assert octets[:1] == b"E"
        lost.add(int(unpack(octets)[0]))
        if clients[0].fileno() >= 0 and len(lost) >= 5:
            break
    assert clients[0].recv(1000).startswith(b"+OK ")
    clients[0].sendall(b"QUIT\r\n")
    assert b"signing off" in clients[0].recv(1000)
    for client in clients:
        client.close()
    front.send(DRAIN)
    assert ended(front) == 0


def test_a_looker():
    line = crew.looker(1)
    if os.geteuid() == 0:
        wait_until(lambda: "Uid:\t65534\t65534\t65534\t65534" in Path(f"/proc/{line.pid}/status").read_text())
    line.send(pack(b"?", b"no address"))
    octets = said(line)
    assert octets[:1] == b"!" and unpack(octets)[0] == b"no address" and len(unpack(octets)) == 4
    line.socket.close()
    assert ended(line) == 0
