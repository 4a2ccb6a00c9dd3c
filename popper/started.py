"""How this process was started: what its descriptors are, and what the environment says of them.

Descriptors are asked, not the environment, wherever they know. What systemd says is taken when it is said to this
process, as sd_listen_fds(3) has it. What tcpserver and its relatives say is for a session whose socket another process
keeps, as sslserver does; of it the address is taken, never the name, which nobody here has verified.
"""

import posix

FIRST = 3                      # the first descriptor that systemd passes
LISTEN = (b"LISTEN_PID", b"LISTEN_FDS", b"LISTEN_FDNAMES", b"LISTEN_PIDFDID")
UCSPI = (b"TCP", b"TCP6", b"SSL", b"SSL6")               # what PROTO may be


def is_connection(fd: int) -> bool:
    """Whether a descriptor is the socket of one client, though it may have gone already."""
    return _stream(fd) == "connection"


def is_listening(fd: int) -> bool:
    """Whether a descriptor is a socket that connections are accepted from."""
    return _stream(fd) == "listening"


def listen_fds(environ: "dict[bytes, bytes]", pid: int) -> "list[int]":
    """The stream sockets that systemd passed to the process with this number, listening or each with one client.

    They are not for programs that we start, and neither are the LISTEN_ variables: these go, whoever they were for.
    What does not add up names no sockets.
    """
    stated = _number(environ.get(b"LISTEN_PID"))
    count = _number(environ.get(b"LISTEN_FDS"))
    _forget(environ, LISTEN)
    if stated != pid or not count:
        return []
    for fd in range(FIRST, FIRST + count):
        try:
            posix.set_inheritable(fd, False)
        except OSError:                      # fewer than were announced
            return []
    return [fd for fd in range(FIRST, FIRST + count) if _stream(fd)]


def ucspi(environ: "dict[bytes, bytes]") -> "tuple[str, int] | None":
    """Address and port of the client as tcpserver, sslserver and their like tell it, or None."""
    protocol = environ.get(b"PROTO")
    if protocol not in UCSPI:
        return None
    for prefix in (protocol, b"TCP"):
        address = _address(environ.get(prefix + b"REMOTEIP", b""))
        port = _number(environ.get(prefix + b"REMOTEPORT"))
        if address and port is not None and port <= 65535:
            return address, port
    return None


def how(environ: "dict[bytes, bytes]", fd: int, pid: int) -> str:
    """One word for the trace: who started this process, whose standard input this is. To be asked before
    `listen_fds`, which takes away what is looked at here."""
    if _number(environ.get(b"LISTEN_PID")) == pid:
        return "systemd"
    if ucspi(environ):
        return "sslserver" if environ[b"PROTO"].startswith(b"SSL") else "tcpserver"
    return "inetd" if _stream(fd) else "stdio"


def _stream(fd: int) -> str:
    """"listening", "connection", or "" for what is no stream socket."""
    try:
        if posix.fstat(fd).st_mode & 0o170000 != 0o140000:
            return ""
    except OSError:
        return ""
    import _socket
    try:
        one = _socket.socket(fileno=fd)
    except OSError:                          # of a kind that Python does not know
        return ""
    try:
        if one.type != _socket.SOCK_STREAM:
            return ""
        return "listening" if one.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN) else "connection"
    finally:
        one.detach()                         # it is not this object's to close


def _number(value: "bytes | None") -> "int | None":
    """Plain digits, or None."""
    return int(value) if value and value.isdigit() and len(value) <= 10 else None


def _address(value: bytes) -> str:
    """An address as inet_ntop(3) writes it, or ""."""
    import _socket
    family = _socket.AF_INET6 if b":" in value else _socket.AF_INET
    try:
        return _socket.inet_ntop(family, _socket.inet_pton(family, value.partition(b"%")[0].decode("ascii")))
    except (OSError, ValueError):
        return ""


def _forget(environ: "dict[bytes, bytes]", names: "tuple[bytes, ...]") -> None:
    """Take variables out of an environment. Python keeps its own copy of the process's, and children get the other."""
    for name in names:
        if environ.pop(name, None) is not None and environ is posix.environ:
            posix.unsetenv(name)
