"""One session on descriptors that somebody else opened: a super-server's socket, or standard input and output.

The greeting leaves before most of popper is imported; the client's round trip hides the rest.
"""

import posix

from popper import greeting
from popper.options import CONFIG


def converse(options, ident: str, trace: "int | None", source: int = 0, sink: int = 1) -> None:
    """Greet, and hold one session."""
    host = options.hostname or posix.uname().nodename
    if _greet(sink, f"+OK {greeting(host)}\r\n".encode("ascii", "replace")):
        import gc
        gc.disable()                         # as in the daemon's children: nothing a session leaves goes in circles
        serve_one(options, ident, trace, host, source, sink)


def serve_one(options, ident: str, trace: "int | None", host: str, source: int, sink: int,
              greeted: bool = True) -> None:
    """Hold one session on a connection."""
    import _signal
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)     # whoever started us may have left these otherwise
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    from popper.journal import Journal, watched
    log = Journal(ident, options, trace, watched(options))
    try:
        peer, connection = _peer_of(source)
    except OSError as error:                 # the client has gone already
        log.notice(f"Unable to obtain socket and address of client: {error.strerror} ({error.errno})")
        return
    log.concerns(peer.address)
    if trace is not None:
        log.notice(f'Tracing session and debugging information in file "{options.trace}"')
        log.warn_of_bodies()
    elif options.debug:
        log.notice("Debugging turned on")
    started = f"Started {_how(options, greeted)}; uid {posix.geteuid()}, configuration {options.config or CONFIG}"
    if connection is not None:
        _prepare(connection, options.debug, log)
        if options.lookup:
            from popper.privilege import become_nobody
            peer.look_up(options.dns_timeout, become_nobody)
    posix.umask(0o077)
    posix.chdir("/")
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    from popper.channel import Channel
    from popper.login import Login
    from popper.serve import Server
    from popper.submit import Submission
    from popper.tally import Tally

    def submission(account):
        return (lambda: Submission(options.sendmail, account.user, account.home, options.xmit_max)) \
            if options.xmit_max else None

    tally = Tally()
    channel = Channel(source, sink, options.timeout, tally)
    Server(channel, host, peer, Login(options, peer, log, tally.spent), options, log, submission).run(greeted, started)


def _how(options, greeted: bool) -> str:
    """By whom this session was started, for the trace."""
    if not greeted:
        return "by the daemon"
    return "with --stdio" if options.stdio else "by tcpserver" if b"TCPREMOTEIP" in posix.environ else "out of inetd"


def _greet(sink: int, line: bytes) -> bool:
    """Write the greeting; whether anybody was there. A socket this new takes it whole."""
    try:
        return posix.write(sink, line) == len(line)
    except OSError:
        return False


def _peer_of(source: int):
    """(Peer, the connection as a socket object), or (a Peer without address, None) where there is no network.

    Raises OSError for a connection that is none any more.
    """
    import _socket
    from popper.peer import Peer
    if posix.fstat(source).st_mode & 0o170000 != 0o140000:
        return Peer("local"), None
    connection = _socket.socket(fileno=source)
    try:
        address = connection.getpeername()
    except OSError:
        connection.detach()
        raise
    if isinstance(address, tuple):
        return Peer(address[0], address[1]), connection
    connection.detach()                      # a UNIX socket has no address to verify
    return Peer("local"), None


def _prepare(connection, debug: bool, log) -> None:
    """No waiting for acknowledgements, and word when the other end has died."""
    import _socket
    options = [(_socket.IPPROTO_TCP, _socket.TCP_NODELAY), (_socket.SOL_SOCKET, _socket.SO_KEEPALIVE)]
    if debug:
        options.append((_socket.SOL_SOCKET, _socket.SO_DEBUG))
    for level, option in options:
        try:
            connection.setsockopt(level, option, 1)
        except OSError as error:
            log.debug(f"setsockopt({level}, {option}): {error.strerror}")
    connection.detach()                      # the descriptor stays open; it is not this object's to close
