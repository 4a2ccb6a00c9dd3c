"""One session on descriptors that somebody else opened: a super-server's socket, or standard input and output.

The greeting leaves before most of popper is imported; the client's round trip hides the rest. Root reads nothing that
a stranger sends: a child without privileges speaks AUTHORIZATION and hands over what it learns (`stranger`).
"""

import posix

from popper import greeting
from popper.options import CONFIG


def converse(options, ident: str, trace: "int | None", source: int = 0, sink: int = 1) -> bool:
    """Greet, and hold one session; false, and nothing was done, where there is no connection but a socket that
    listens."""
    host = options.hostname or posix.uname().nodename
    early = not (options.allow_deny or options.hosts_access or options.proxy_from)
    if not early or not _greet(sink, f"+OK {greeting(host)}\r\n".encode("ascii", "replace")):
        from popper.started import is_listening
        if is_listening(source):
            return False
        if early:                            # the client has gone already
            return True
    import gc
    gc.disable()                             # as in the daemon's children: nothing a session leaves goes in circles
    serve_one(options, ident, trace, host, source, sink, early)
    return True


def serve_one(options, ident: str, trace: "int | None", host: str, source: int, sink: int, greeted: bool) -> None:
    """Hold one session on a connection."""
    import _signal
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)     # whoever started us may have left these otherwise
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    from popper.journal import Journal, watched
    log = Journal(ident, options, trace, watched(options), str(posix.getpid()))
    try:
        peer, connection = _peer_of(source)
    except OSError as error:                 # the client has gone already
        log.notice(f"Unable to obtain socket and address of client: {error.strerror} ({error.errno})")
        return
    if trace is not None:
        log.notice(f'Tracing session and debugging information in file "{options.trace}"')
        log.warn_of_bodies()
    elif options.debug:
        log.notice("Debugging turned on")
    started = f"Started {_how(options)}; uid {posix.geteuid()}, configuration {options.config or CONFIG}"
    if connection is not None:
        _prepare(connection, options.debug, log)
    proxied = bool(options.proxy_from) and options.proxy_from.has(peer.address)
    rules = None
    if not greeted:
        rules = _rules(options, ident, log, peer if not proxied else None, sink)
        if rules is False:
            return
    if not proxied:
        _look_up(options, peer, log)
    if posix.geteuid() == 0 or proxied:
        from popper.separate import Separate

        def make(beat, opened):
            return session(options, log, host, peer, source, sink, rules, False, beat, opened)

        def claimed() -> "str | None":
            """A proxy has told who it is: why that one may not come in, or None."""
            complaint = _complaint(rules, peer)
            if complaint:
                log.warning(complaint[0])
                return complaint[1]
            _look_up(options, peer, log)
            return None

        Separate(options, host, log, peer, source, sink, claimed if proxied else None).run(make, greeted, started)
    else:
        session(options, log, host, peer, source, sink, rules).run(greeted, started)


def session(options, log, host: str, peer, source: int, sink: int, rules=None, answers_refusals: bool = True,
            beat=None, opened=lambda: None, guessers: bool = True):
    """-> a Server for a connection. guessers: whether they are slowed down here."""
    posix.umask(0o077)
    posix.chdir("/")
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    from popper.channel import Channel
    from popper.login import Login, guessers_of
    from popper.serve import Server
    from popper.submit import Submission
    from popper.tally import Tally

    def submission(account):
        return (lambda: Submission(options.sendmail, account.user, account.home, options.xmit_max)) \
            if options.xmit_max else None

    tally = Tally()
    login = Login(options, peer, log, tally.spent, guessers_of(options) if guessers else None, rules)
    return Server(Channel(source, sink, options.timeout, tally), host, peer, login, options, log, submission,
                  answers_refusals, beat, opened)


# -- the client -------------------------------------------------------------------------------------------------------

def _rules(options, ident, log, peer, sink):
    """Who may come in; false: not this one, and he was told. peer: None when it is not known yet who that is."""
    from popper.errors import ConfigError
    from popper.login import NO_ACCESS, rules_of
    try:
        rules = rules_of(options, ident)
        complaint = peer and _complaint(rules, peer)
    except ConfigError as trouble:           # a list that cannot be read lets nobody in
        log.critical(str(trouble))
        complaint = "", NO_ACCESS
    if not complaint:
        return rules
    if complaint[0]:
        log.warning(complaint[0])
    _greet(sink, f"-ERR [SYS/PERM] {complaint[1]}\r\n".encode())
    return False


def _complaint(rules, peer) -> "tuple[str, str] | None":
    """(log line, what the client is told) when an address may not come in, whoever it is."""
    if rules is None:
        return None
    from popper.access import DENY
    from popper.login import NO_ACCESS, place_of
    verdict, rule = rules.decide(place_of(peer))
    return (f"Refused connection from {peer.address} by {rule}", NO_ACCESS) if verdict == DENY else None


def _look_up(options, peer, log) -> None:
    """Start asking DNS, where that is wanted and there is something to ask for."""
    log.concerns(peer.address)
    if not options.lookup or peer.address == "local":
        return
    if not options.trusted:
        from popper.privilege import become_nobody
        peer.look_up(options.dns_timeout, become_nobody)
        return
    from popper.login import trusted_of
    from popper.privilege import become_nobody
    trusted = trusted_of(options)
    peer.trusted = trusted is not None and trusted.has(peer.address)
    if not peer.trusted:
        peer.look_up(options.dns_timeout, become_nobody)


def _how(options) -> str:
    """By whom this session was started, for the trace."""
    return "with --stdio" if options.stdio else "by tcpserver" if b"TCPREMOTEIP" in posix.environ else "out of inetd"


def _greet(sink: int, line: bytes) -> bool:
    """Write the greeting; whether anybody was there. A socket this new takes it whole."""
    try:
        return posix.write(sink, line) == len(line)
    except OSError:
        return False


def _peer_of(source: int):
    """(Peer, the connection as a socket object), or (a Peer, None) where there is no network: then UCSPI may know of
    one.

    Raises OSError for a connection that is none any more.
    """
    import _socket
    from popper.peer import Peer
    if posix.fstat(source).st_mode & 0o170000 == 0o140000:
        connection = _socket.socket(fileno=source)
        try:
            address = connection.getpeername()
        except OSError:
            connection.detach()
            raise
        if isinstance(address, tuple):
            return Peer(address[0], address[1]), connection
        connection.detach()                  # a UNIX socket has no address to verify
    if b"PROTO" in posix.environ:
        from popper.started import ucspi
        return Peer(*(ucspi(posix.environ) or ("local",))), None
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
