"""The sockets a daemon listens on: families, names, what connections inherit, and what cannot be."""

import os
import socket
from contextlib import closing

import pytest

from conftest import free_port
from popper import listeners
from popper.errors import ConfigError
from popper.listeners import adopt, listen, name_of, place_of, prepare


def call(address, port):
    with socket.create_connection((address, port), 10) as client:
        return client.getpeername()[0]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost"])
def test_an_address(address):
    with closing(listen(address, 0)) as listener:
        place = place_of(listener)
        assert call(*place) in ("127.0.0.1", "::1") and place[1] > 0


def test_every_address_of_both_families():
    with closing(listen("", 0)) as listener:
        place, port = place_of(listener)
        assert place == "::" and call("127.0.0.1", port) == "127.0.0.1" and call("::1", port) == "::1"


def test_every_address_where_there_is_no_ipv6(monkeypatch):
    real = listeners._listening

    def without(family, place):
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real(family, place)
    monkeypatch.setattr(listeners, "_listening", without)
    with closing(listen("", 0)) as listener:
        assert place_of(listener)[0] == "0.0.0.0"


def test_ipv6_alone_leaves_ipv4_to_others():
    with closing(listen("::1", 0)) as listener:
        port = place_of(listener)[1]
        with closing(listen("127.0.0.1", port)) as other:
            assert place_of(other) == ("127.0.0.1", port)


@pytest.mark.parametrize("address, shown", [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("", "*")])
def test_a_port_that_somebody_has(address, shown):
    with closing(listen(address, 0)) as listener:
        port = place_of(listener)[1]
        with pytest.raises(ConfigError) as caught:
            listen(address, port)
        assert str(caught.value) == f"cannot listen on {shown}:{port}: Address already in use"


def test_an_address_that_is_not_ours():
    with pytest.raises(ConfigError, match="cannot listen on 192.0.2.77:1110: Cannot assign"):
        listen("192.0.2.77", 1110)


def test_a_name_that_is_none():
    with pytest.raises(ConfigError, match=r"cannot listen on no\.such\.invalid:110: \S"):
        listen("no.such.invalid", 110)


def test_a_port_that_was_just_used_can_be_had_again():
    port = free_port()
    with closing(listen("127.0.0.1", port)) as listener:
        client = socket.create_connection(("127.0.0.1", port))
        os.close(listener._accept()[0])      # ours is the end that waits now
        client.close()
    listen("127.0.0.1", port).close()


def test_no_descriptor_is_left_when_it_cannot_be():
    with closing(listen("127.0.0.1", 0)) as listener:
        before = set(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(ConfigError):
                listen("127.0.0.1", place_of(listener)[1])
        assert set(os.listdir("/proc/self/fd")) == before


def test_what_connections_inherit():
    with closing(listen("127.0.0.1", 0)) as listener:
        prepare(listener, False)
        with pytest.raises(BlockingIOError):
            listener._accept()
        with socket.create_connection(place_of(listener)):
            listener.setblocking(True)
            with socket.socket(fileno=listener._accept()[0]) as connection:
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_unix_socket_is_prepared_as_far_as_it_goes(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "pop"))
        listener.listen()
        prepare(listener, True)
        assert not listener.getblocking()
        assert place_of(listener) == (str(tmp_path / "pop"), 0)


def test_a_socket_that_somebody_else_made():
    with socket.create_server(("127.0.0.1", 0)) as made:
        with closing(adopt(os.dup(made.fileno()))) as listener:
            assert place_of(listener) == made.getsockname() and listener.family == socket.AF_INET


@pytest.mark.parametrize("place, name", [(("192.0.2.1", 110), "192.0.2.1:110"), (("::", 110), "[::]:110"),
                                         (("2001:db8::1", 1110), "[2001:db8::1]:1110"), (("*", 110), "*:110")])
def test_names(place, name):
    assert name_of(place) == name
