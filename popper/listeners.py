"""The sockets a daemon listens on."""

import _socket

from popper.errors import ConfigError

BACKLOG = 1024


def listen(address: str, port: int):
    """A listening socket on an address, or on every address; ConfigError when that cannot be."""
    try:
        if not address:
            try:
                return _listening(_socket.AF_INET6, ("::", port))
            except OSError as error:
                if error.errno == 98:        # somebody has the port: with IPv4 alone it would be no better
                    raise
                return _listening(_socket.AF_INET, ("0.0.0.0", port))
        family, _, _, _, place = _socket.getaddrinfo(address, port, 0, _socket.SOCK_STREAM, 0, _socket.AI_PASSIVE)[0]
        return _listening(family, place)
    except OSError as error:
        raise ConfigError(f"cannot listen on {name_of((address or '*', port))}: {error.strerror or error}") from None


def _listening(family: int, place):
    listener = _socket.socket(family, _socket.SOCK_STREAM)
    try:
        listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        if family == _socket.AF_INET6:
            listener.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 0 if place[0] == "::" else 1)
        listener.bind(place)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def adopt(fd: int):
    """A listening socket that somebody else made."""
    return _socket.socket(fileno=fd)


def prepare(listener, debug: bool) -> None:
    """What connections inherit: no waiting for acknowledgements, and word when the other end has died."""
    listener.setblocking(False)
    options = [(_socket.IPPROTO_TCP, _socket.TCP_NODELAY), (_socket.SOL_SOCKET, _socket.SO_KEEPALIVE)]
    if debug:
        options.append((_socket.SOL_SOCKET, _socket.SO_DEBUG))
    for level, option in options:
        try:
            listener.setsockopt(level, option, 1)
        except OSError:
            pass                             # not TCP


def place_of(listener) -> "tuple[str, int]":
    """(address, port) that it listens on; a UNIX socket's path and 0."""
    name = listener.getsockname()
    return (name[0], name[1]) if isinstance(name, tuple) else (str(name), 0)


def name_of(place: "tuple[str, int]") -> str:
    """ADDRESS:PORT, IPv6 in brackets."""
    address, port = place
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
