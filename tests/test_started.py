"""How a process was started: descriptors are asked; the environment is believed when it speaks of this process."""

import os
import select
import shutil
import socket
import subprocess
import sys
import textwrap

import pytest

from conftest import TREE, free_port, wait_until
from popper import started

PID = 4711


@pytest.fixture
def sockets():
    """listening, the two ends of a connection, UNIX ends, and things that are no stream sockets: name -> fd"""
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    one, other = socket.socketpair()
    datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    packets = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reader, writer = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    yield {"listening": listener, "client": client, "server": server, "unix": one, "datagram": datagram,
           "packets": packets[0], "pipe": reader, "null": null}
    for each in (listener, client, server, one, other, datagram, *packets):
        each.close()
    for each in (reader, writer, null):
        os.close(each)


def number(thing):
    return thing if isinstance(thing, int) else thing.fileno()


@pytest.mark.parametrize("name, connection, listening", [
    ("listening", False, True), ("client", True, False), ("server", True, False), ("unix", True, False),
    ("datagram", False, False), ("packets", False, False), ("pipe", False, False), ("null", False, False)])
def test_a_descriptor_is_asked_what_it_is(sockets, name, connection, listening):
    fd = number(sockets[name])
    for _ in range(2):                       # asking does not close it
        assert started.is_connection(fd) is connection
        assert started.is_listening(fd) is listening
    os.fstat(fd)


def test_a_closed_descriptor_is_nothing():
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    assert not started.is_connection(reader) and not started.is_listening(reader)
    assert not started.is_connection(-1)


def test_a_client_that_has_gone_is_still_a_connection_and_no_reason_to_become_a_daemon(sockets):
    sockets["client"].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")     # with a reset
    sockets["client"].close()
    server = sockets["server"]
    poll = select.poll()
    poll.register(server, 0)
    poll.poll()                              # the reset has come
    with pytest.raises(OSError):
        server.getpeername()
    assert started.is_connection(server.fileno())


# -- what systemd says


@pytest.mark.parametrize("environ", [
    {}, {"FDS": b"1"}, {"PID": b"4711"}, {"PID": b"4712", "FDS": b"1"}, {"PID": b"4711", "FDS": b"0"},
    {"PID": b"4711", "FDS": b""}, {"PID": b"4711", "FDS": b"-1"}, {"PID": b"4711", "FDS": b"one"},
    {"PID": b"4711", "FDS": b"1.0"}, {"PID": b"4711", "FDS": b"100000"}, {"PID": b"4711", "FDS": b"9" * 5000},
    {"PID": b"", "FDS": b"1"}, {"PID": b"+4711", "FDS": b"1"}, {"PID": b"\xff", "FDS": b"1"}])
def test_what_does_not_add_up_names_no_sockets_and_goes_all_the_same(environ):
    environ = {b"LISTEN_" + name.encode(): value for name, value in environ.items()}
    environ.update({b"LISTEN_FDNAMES": b"pop3", b"LISTEN_PIDFDID": b"12", b"LISTEN": b"stays"})
    assert started.listen_fds(environ, PID) == []
    assert environ == {b"LISTEN": b"stays"}


def in_a_child(source, *, passed=(), environ=None):
    """Run a program whose descriptors from 3 on are these; -> its lines. It may call `give(value)`."""
    places = "".join(f" {3 + at}<&{fd}" for at, fd in enumerate(passed)) + "".join(
        f" {fd}<&-" for fd in passed if fd >= 3 + len(passed))
    program = "import os, posix, sys\nsys.path.insert(0, sys.argv[1])\n" + textwrap.dedent(source)
    command = ["bash", "-c", f'exec "$@"{places}', "bash", sys.executable, "-ISc", program, str(TREE)]
    done = subprocess.run(command, pass_fds=passed, env={**os.environ, **(environ or {})}, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


FOUND = """
    os.environ["LISTEN_PID"] = str(os.getpid())
    from popper import started
    found = started.listen_fds(posix.environ, os.getpid())
    print(found, [os.get_inheritable(fd) for fd in found])
    print([started.is_listening(fd) for fd in found])
    print([name for name in posix.environ if name.startswith(b"LISTEN_")],
          [name for name in os.environ if name.startswith("LISTEN_")])
    sys.stdout.flush()
    os.system("env | grep ^LISTEN_ ; ls /proc/self/fd")
"""


def test_the_sockets_of_systemd_are_found_and_go_no_further(sockets):
    listening, server = sockets["listening"].fileno(), sockets["server"].fileno()
    lines = in_a_child(FOUND, passed=(listening, server), environ={"LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"})
    assert lines[:3] == ["[3, 4] [False, False]", "[True, False]", "[] []"]
    assert not [line for line in lines[3:] if line.startswith("LISTEN_")]
    assert len(lines[3:]) == 4               # 0, 1, 2, and the directory that ls reads


def test_what_is_no_stream_socket_is_left_out_and_closed_to_children(sockets):
    passed = tuple(number(sockets[name]) for name in ("datagram", "server", "pipe"))
    lines = in_a_child(FOUND, passed=passed, environ={"LISTEN_FDS": "3"})
    assert lines[0] == "[4] [False]"
    assert len(lines[3:]) == 4


def test_the_sockets_of_another_process_are_not_ours(sockets):
    """As where a shell that systemd started them for has started us."""
    another = FOUND.replace("str(os.getpid())", "str(os.getppid())")
    lines = in_a_child(another, passed=(sockets["listening"].fileno(),), environ={"LISTEN_FDS": "1"})
    assert lines[0] == "[] []" and lines[2] == "[] []"


def test_fewer_sockets_than_were_announced_are_none(sockets):
    assert in_a_child(FOUND, passed=(sockets["listening"].fileno(),), environ={"LISTEN_FDS": "2"})[0] == "[] []"


PROGRAM = """
import os, posix, sys
sys.path.insert(0, {tree!r})
from popper import started
word = started.how(posix.environ, 0, os.getpid())
found = started.listen_fds(posix.environ, os.getpid())
kinds = ["listening" if started.is_listening(fd) else "connection" for fd in found]
line = f"{{word}} {{found}} {{kinds}} {{started.is_connection(0)}} {{started.is_listening(0)}}\\n".encode()
if not started.is_connection(0) and not found:
    os.write(1, line)
    sys.exit()
import _socket
one = _socket.socket(fileno=0 if started.is_connection(0) else found[0])
if started.is_listening(one.fileno()):
    fd, _ = one._accept()
    one.detach()
    one = _socket.socket(fileno=fd)
one.sendall(line)
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program"
    path.write_text(f"#!{sys.executable} -IS\n" + PROGRAM.format(tree=str(TREE)))
    path.chmod(0o755)
    return path


def answer(port):
    """What the program says to who connects."""
    def asked():
        try:
            with socket.create_connection(("127.0.0.1", port)) as one, one.makefile() as lines:
                return lines.read()
        except OSError:
            return ""
    return wait_until(asked)


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="systemd is not installed")
@pytest.mark.parametrize("flags, said", [
    ([], "systemd [3] ['listening'] False False\n"),
    (["--accept"], "systemd [3] ['connection'] False False\n"),
    (["--accept", "--inetd"], "inetd [] [] True False\n")])
def test_systemd_starts_it(program, flags, said):
    port = free_port()
    activator = subprocess.Popen(["systemd-socket-activate", "-l", f"127.0.0.1:{port}", *flags, str(program)],
                                 stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert answer(port) == said
    finally:
        activator.kill()
        activator.wait()


@pytest.mark.root
def test_inetd_starts_it(program, start_inetd):
    assert answer(start_inetd(program).port) == "inetd [] [] True False\n"


@pytest.mark.root
def test_tcpserver_starts_it(program, start_tcpserver):
    assert answer(start_tcpserver(program).port) == "tcpserver [] [] True False\n"


def test_a_shell_starts_it(program):
    done = subprocess.run([program], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.stdout == "stdio [] [] False False\n"


def test_inetd_waits_for_who_is_given_the_listening_socket(sockets):
    assert started.how({}, sockets["listening"].fileno(), PID) == "inetd"


def test_a_word_for_systemd_is_for_this_process_alone(sockets):
    fd = sockets["server"].fileno()
    assert started.how({b"LISTEN_PID": b"4711"}, fd, PID) == "systemd"
    assert started.how({b"LISTEN_PID": b"1"}, fd, PID) == "inetd"


# -- what tcpserver says


@pytest.mark.parametrize("protocol, prefix", [
    ("TCP", "TCP"), ("TCP6", "TCP6"), ("TCP6", "TCP"), ("SSL", "SSL"), ("SSL", "TCP"), ("SSL6", "SSL6")])
@pytest.mark.parametrize("said, address", [
    ("192.0.2.7", "192.0.2.7"), ("2001:DB8:0::7", "2001:db8::7"), ("::ffff:192.0.2.7", "::ffff:192.0.2.7"),
    ("fe80::1%eth0", "fe80::1")])
def test_the_address_of_tcpserver_and_its_relatives(protocol, prefix, said, address):
    environ = {"PROTO": protocol, prefix + "REMOTEIP": said, prefix + "REMOTEPORT": "40000",
               prefix + "REMOTEHOST": "trusted.example.org"}
    environ = {name.encode(): value.encode() for name, value in environ.items()}
    assert started.ucspi(environ) == (address, 40000)
    assert started.how(environ, 0, PID) == ("sslserver" if protocol.startswith("SSL") else "tcpserver")


def test_a_protocol_of_its_own_counts_before_the_copy_for_others():
    environ = {b"PROTO": b"SSL", b"SSLREMOTEIP": b"192.0.2.7", b"SSLREMOTEPORT": b"1", b"TCPREMOTEIP": b"192.0.2.8",
               b"TCPREMOTEPORT": b"2"}
    assert started.ucspi(environ) == ("192.0.2.7", 1)


@pytest.mark.parametrize("name, value", [
    (b"PROTO", b"UNIX"), (b"PROTO", b""), (b"PROTO", None), (b"TCPREMOTEIP", None), (b"TCPREMOTEIP", b""),
    (b"TCPREMOTEIP", b"host.example.org"), (b"TCPREMOTEIP", b"192.0.2"), (b"TCPREMOTEIP", b"192.0.2.7\n"),
    (b"TCPREMOTEIP", b"\xff"), (b"TCPREMOTEIP", b"1\0"), (b"TCPREMOTEPORT", None), (b"TCPREMOTEPORT", b"65536"),
    (b"TCPREMOTEPORT", b"-1"), (b"TCPREMOTEPORT", b"pop3"), (b"TCPREMOTEPORT", b"9" * 5000)])
def test_half_an_address_is_none(name, value):
    environ = {b"PROTO": b"TCP", b"TCPREMOTEIP": b"192.0.2.7", b"TCPREMOTEPORT": b"40000", name: value}
    if value is None:
        del environ[name]
    assert started.ucspi(environ) is None


def test_the_environment_of_the_process_itself_loses_what_is_forgotten():
    """Also where os has made no copy yet: what execve(2) passes on is the C library's."""
    script = """
    posix.putenv(b"LISTEN_FDS", b"1")
    posix.environ[b"LISTEN_FDS"] = b"1"
    from popper import started
    started.listen_fds(posix.environ, 1)
    import ctypes
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    print(getenv(b"LISTEN_FDS"), posix.environ.get(b"LISTEN_FDS"))
    """
    assert in_a_child(script) == ["None None"]
