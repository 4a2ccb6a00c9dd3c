"""The file system that plays NFS does what it is said to do."""

import fcntl
import os

import pytest

from places_faulty import Unavailable, nfs

pytestmark = pytest.mark.root


@pytest.fixture
def client(request):
    """A place with the habits that the test asks for."""
    place = nfs(*request.param)
    try:
        where = place.__enter__()
    except Unavailable as why:
        pytest.skip(str(why))
    yield where
    place.__exit__(None, None, None)


@pytest.mark.parametrize("client", [["link=lost", "unlink=lost"]], indirect=True)
def test_what_is_done_is_reported_as_not_done(client):
    one, two = client.directory / "one", client.directory / "two"
    one.write_bytes(b"mail")
    with pytest.raises(FileExistsError):
        os.link(one, two)
    assert one.stat().st_ino == two.stat().st_ino
    with pytest.raises(FileNotFoundError):
        os.unlink(one)
    assert os.listdir(client.behind) == ["two"]


@pytest.mark.parametrize("client", [["attr=5"]], indirect=True)
def test_what_another_host_adds_is_seen_late_and_with_a_lock_at_once(client):
    (client.behind / "joe").write_bytes(b"mail")
    with open(client.directory / "joe", "r+b") as file:
        assert os.fstat(file.fileno()).st_size == 4
        with open(client.behind / "joe", "ab") as behind:
            behind.write(b" and more")
        assert os.fstat(file.fileno()).st_size == 4
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert os.fstat(file.fileno()).st_size == 13


@pytest.mark.parametrize("client", [["attr=5"]], indirect=True)
def test_a_name_that_another_host_makes_is_seen_after_a_change_of_ones_own(client):
    assert not (client.directory / "joe.lock").exists()
    (client.behind / "joe.lock").write_bytes(b"")
    assert not (client.directory / "joe.lock").exists()
    (client.directory / "other").write_bytes(b"")
    assert (client.directory / "joe.lock").exists()


@pytest.mark.parametrize("client", [[]], indirect=True)
def test_locks_are_between_processes_and_end_with_them(client):
    path = client.directory / "joe"
    path.write_bytes(b"mail")
    with open(path, "r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        child = os.fork()
        if not child:                        # it inherits the open file; closing that gives no lock back
            os.close(file.fileno())
            with open(path, "r+b") as again:
                try:
                    fcntl.lockf(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
    with open(path, "r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
