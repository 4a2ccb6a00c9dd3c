"""popper on its own: listen, fork for each connection, reap. In the foreground; a supervisor looks after it.

Everything is imported before the first fork and frozen out of the collector's sight, so a connection costs a fork.
"""

import gc
import os
import resource                              # noqa: F401  for the children, like what is below
import select
import _signal
import _socket

from popper import auth, inetd, journal, login, serve, submit    # noqa: F401
from popper.errors import ConfigError

BACKLOG = 128


def listen(address: str, port: int):
    """A listening socket on an address, or on every address; ConfigError when that cannot be."""
    import socket
    try:
        if not address and socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return socket.create_server((address, port), family=family, backlog=BACKLOG)
    except OSError as error:
        why = error.strerror.partition(" (while ")[0]       # create_server says the address again
        raise ConfigError(f"cannot listen on {address or '*'}:{port}: {why}") from None


def run(options, ident: str, trace: "int | None", listener) -> None:
    """Accept until SIGTERM or SIGINT; sessions under way end by themselves."""
    log = journal.Journal(ident, options, trace)
    host = options.hostname or os.uname().nodename
    stop_reader, stop_writer = os.pipe()
    os.set_blocking(stop_writer, False)
    children: "set[int]" = set()
    for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGCHLD):
        _signal.signal(number, lambda number, frame: None)
    _signal.signal(_signal.SIGHUP, _signal.SIG_IGN)
    _signal.set_wakeup_fd(stop_writer)
    listener.setblocking(False)
    auth.modules(options)
    if options.bulletins:
        from popper import bulletins         # noqa: F401
    gc.freeze()
    log.info(f"listening on {listener.getsockname()[0]} port {listener.getsockname()[1]}")
    poll = select.poll()
    poll.register(stop_reader, select.POLLIN)
    poll.register(listener, select.POLLIN)
    while True:
        events = dict(poll.poll())
        if stop_reader in events:
            signals = os.read(stop_reader, 512)
            _reap(children)
            if any(number in signals for number in (_signal.SIGTERM, _signal.SIGINT)):
                log.info(f"ending; {len(children)} sessions go on")
                return
        if listener.fileno() not in events:
            continue
        try:
            connection, _ = listener.accept()
        except OSError as error:
            if error.errno not in (11, 103):     # the client has gone again
                log.warning(f"accept: {error.strerror}")
                select.poll().poll(100)          # out of descriptors: do not spin
            continue
        if len(children) >= options.maxsessions:
            _turn_away(connection, log)
            continue
        try:
            child = os.fork()
        except OSError as error:
            log.warning(f"fork: {error.strerror}")
            _turn_away(connection, log)
            continue
        if not child:
            try:
                _signal.set_wakeup_fd(-1)
                _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
                listener.close()
                os.close(stop_reader)
                os.close(stop_writer)
                gc.disable()
                fd = connection.detach()
                inetd.serve_one(options, ident, journal.followed(trace, options.trace), host, fd, fd, greeted=False)
            except BaseException as trouble:
                log.critical(f"a session could not begin: {type(trouble).__name__}: {trouble}")
            finally:
                os._exit(0)
        children.add(child)
        connection.close()


def _reap(children: "set[int]") -> None:
    while children:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            children.clear()
            return
        if not pid:
            return
        children.discard(pid)


def _turn_away(connection, log) -> None:
    log.warning("too many sessions, a connection is refused")
    try:
        connection.send(b"-ERR [SYS/TEMP] Too many sessions, try again later.\r\n", _socket.MSG_DONTWAIT)
    except OSError:
        pass
    connection.close()
