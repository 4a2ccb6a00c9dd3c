"""The file that guessers share: full buckets, several processes, and a file that may be found in any state."""

import errno
import fcntl
import os
import resource
import stat
import struct
import subprocess

import pytest
from guessing import (ANN, HERE, JOE, THERE, Clock, again, clock, count, fail, fail_elsewhere, held,       # noqa: F401
                      path)
from hypothesis import given
from hypothesis import strategies as some
from processes import Program, forks, in_child

from popper import slots
from popper.guessers import RENEWED, Guessers
from popper.slots import ADDRESS, BUCKET, HEAD, HEADER, NAME, PAIR, PATIENCE, SIZE, packed

HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "rb+")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


# -- full buckets ----------------------------------------------------------------------------------------------------

def test_in_a_full_bucket_the_mildest_goes(held, clock, monkeypatch):
    monkeypatch.setattr(NAME, "buckets", 1)
    for number in range(BUCKET):
        fail(held, 3 + number, f"192.0.2.{number}", b"name%d" % number)
        clock.now += 1
    held.failed(THERE, b"newcomer")
    names = [row[1] for row in held.held() if row[0] == "name"]
    assert len(names) == BUCKET and "name0" not in names and "newcomer" in names
    held.failed(THERE, b"another")
    assert count(held, "newcomer") == 0.0 and count(held, "name1") > 3 and count(held, "another") == 1


def test_of_pairs_the_one_goes_whose_last_success_is_oldest(held, clock, monkeypatch):
    monkeypatch.setattr(PAIR, "buckets", 1)
    for number in range(BUCKET):
        held.succeeded(HERE, b"name%d" % number)
        clock.now += 1
    clock.now += RENEWED
    held.succeeded(HERE, b"name0")
    clock.now += 1
    held.succeeded(HERE, b"newcomer")
    known = []
    for name in (*(b"name%d" % number for number in range(BUCKET)), b"newcomer"):
        fail_elsewhere(held, 20, name)
        known.append(held.wait(HERE, name) == 0.0)
    assert known == [True, False] + [True] * (BUCKET - 1)


def test_a_flood_of_names_pushes_out_neither_pairs_nor_who_is_worse(held, path):
    held.succeeded(HERE, JOE)
    fail(held, 10, THERE, ANN)
    for number in range(3000):
        held.failed("203.0.113.5", b"flood%d" % number)
    assert count(held, THERE) == 10 and count(held, "ann") == 10
    fail_elsewhere(held, 20)
    assert held.wait(HERE, JOE) == 0.0
    assert path.stat().st_size == SIZE


def test_nobody_can_know_who_shares_a_bucket(tmp_path, clock):
    places = set()
    for number in range(20):
        held = Guessers(str(tmp_path / str(number)), 30, clock=clock)
        held.failed(HERE, JOE)
        places.add(held.slots._bucket(ADDRESS, packed(HERE))[0])
        held.close()
    assert len(places) > 10


# -- several processes -----------------------------------------------------------------------------------------------

@forks
def test_failures_of_processes_at_once_are_all_counted(held, again, monkeypatch):
    monkeypatch.setattr(slots, "PATIENCE", 60)
    held.wait(HERE, JOE)                     # open before the fork: a lock of the parent's would be its children's too
    children = []
    for _ in range(4):
        child = os.fork()
        if not child:
            fail(held, 60)
            os._exit(bool(held.trouble))
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert count(again(), HERE) == count(held, "joe") == 240


@forks
def test_turns_booked_by_processes_at_once_are_all_different(held, monkeypatch):
    monkeypatch.setattr(slots, "PATIENCE", 60)
    fail(held, 3)
    reading, writing = os.pipe()
    for _ in range(3):
        if not os.fork():
            for _ in range(9):
                os.write(writing, b"%d " % held.wait(HERE, ANN))
            os._exit(0)
    os.close(writing)
    for _ in range(3):
        os.wait()
    with os.fdopen(reading) as pipe:
        assert sorted(map(int, pipe.read().split())) == list(range(1, 28))


@forks
def test_a_child_locks_for_itself(held, path):
    held.wait(HERE, JOE)

    def attempt():
        fail(held, 3)
        return f"{held.wait(HERE, ANN)} {held.trouble}"
    with open(path, "rb+"):
        fcntl.flock(held.slots.file, fcntl.LOCK_EX)
        assert "is locked by another process" in in_child(attempt)
        fcntl.flock(held.slots.file, fcntl.LOCK_UN)


def test_who_holds_the_lock_and_does_not_let_go_stops_nobody(held, again, path):
    fail(held, 5)
    assert PATIENCE <= 0.2
    holder = Program(HOLDER, path)
    try:
        assert holder.said == "held"
        other = again()
        assert other.wait(THERE, ANN) == 0.0
        assert other.trouble == "", "a clean pair needs no lock"
        assert other.wait(HERE, ANN) == 0.0
        assert other.trouble == f"{path} is locked by another process; guessers are not slowed down."
        other.failed(HERE, JOE)
        other.succeeded(HERE, ANN)
    finally:
        holder.kill()
    assert count(other, HERE) == 5, "nothing is written without the lock"
    assert other.wait(HERE, ANN) == 4.0


@forks
def test_a_process_that_dies_in_between_leaves_no_lock(held, path):
    fail(held, 5)

    def dies():
        with held.slots.locked():
            os._exit(3)
    child = os.fork()
    if not child:
        held.close()
        held.slots.open()
        dies()
    os.waitpid(child, 0)
    assert held.wait(HERE, ANN) == 4.0 and held.trouble == ""


# -- the file --------------------------------------------------------------------------------------------------------

def test_the_file_is_ours_alone_small_and_mostly_holes(held, path):
    umask = os.umask(0)
    try:
        fail(held, 3)
    finally:
        os.umask(umask)
    status = path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o600 and status.st_size == SIZE < 400000
    assert status.st_blocks * 512 <= 65536
    assert not os.get_inheritable(held.slots.file)


def test_a_directory_that_is_missing_is_made_and_no_more_than_that(tmp_path, clock):
    umask = os.umask(0o077)
    try:
        held = Guessers(str(tmp_path / "run" / "guessers"), 30, clock=clock)
        fail(held, 3)
        deep = Guessers(str(tmp_path / "a" / "b" / "guessers"), 30, clock=clock)
        fail(deep, 3)
    finally:
        assert os.umask(umask) == 0o077
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o755
    assert held.wait(HERE, ANN) == 1.0 and held.trouble == ""
    assert deep.wait(HERE, ANN) == 0.0 and not (tmp_path / "a").exists()
    assert deep.trouble == f"{deep.slots.path} cannot be used: No such file or directory; guessers are not slowed down."
    held.close()


def test_a_file_that_was_removed_or_replaced_is_noticed(held, again, path):
    fail(held, 5)
    path.unlink()
    assert held.wait(HERE, ANN) == 0.0 and path.exists() and held.trouble == ""
    fail(held, 5)
    other = Guessers(str(path) + ".new", 30, clock=held.clock)
    other.failed(HERE, JOE)
    other.close()
    os.rename(str(path) + ".new", path)
    assert count(held, HERE) == 1


def symlink(path, tmp_path):
    (tmp_path / "victim").write_bytes(b"")
    path.symlink_to(tmp_path / "victim")


def dangling(path, tmp_path):
    path.symlink_to(tmp_path / "nowhere")


def hard_link(path, tmp_path):
    (tmp_path / "victim").write_bytes(b"")
    (tmp_path / "victim").chmod(0o600)
    os.link(tmp_path / "victim", path)


def directory(path, tmp_path):
    path.mkdir()


def fifo(path, tmp_path):
    os.mkfifo(path, 0o600)


def readable(path, tmp_path):
    path.write_bytes(b"")
    path.chmod(0o644)


def readable_by_a_group(path, tmp_path):
    path.write_bytes(b"")
    path.chmod(0o640)


def mailbox(path, tmp_path):
    path.write_bytes(b"From a@example.org Mon Mar  4 10:00:00 2024\n\n")
    path.chmod(0o600)


def zeroes_of_somebody(path, tmp_path):
    path.write_bytes(bytes(SIZE - 1))
    path.chmod(0o600)


@pytest.mark.parametrize("trap, words", [
    (symlink, "cannot be used: Too many levels of symbolic links"), (dangling, "cannot be used: Too many levels"),
    (hard_link, "has more than one link"), (directory, "cannot be used: Is a directory"),
    (fifo, "is not a regular file"), (readable, "is open to others"),
    (readable_by_a_group, "is open to others"), (mailbox, "is some other file"),
    (zeroes_of_somebody, "is some other file")])
def test_what_is_not_our_file_is_not_touched(held, path, tmp_path, trap, words):
    trap(path, tmp_path)
    names = sorted(file.name for file in tmp_path.iterdir())
    before = path.read_bytes() if path.is_file() else None
    fail(held, 10)
    held.succeeded(HERE, JOE)
    assert held.wait(HERE, JOE) == 0.0 and held.held() == []
    assert held.trouble.startswith(f"{path} {words}") and held.trouble.endswith("; guessers are not slowed down.")
    assert sorted(file.name for file in tmp_path.iterdir()) == names
    assert (path.read_bytes() if path.is_file() else None) == before


@pytest.mark.root
def test_a_file_of_another_user_is_not_touched(held, path):
    path.write_bytes(b"")
    path.chmod(0o600)
    os.chown(path, 65534, 65534)
    fail(held, 10)
    assert held.wait(HERE, JOE) == 0.0 and "belongs to another user" in held.trouble
    assert path.read_bytes() == b""


def test_trouble_that_was_mended_is_forgotten(held, path):
    path.mkdir()
    fail(held, 10)
    assert held.trouble
    path.rmdir()
    fail(held, 5)
    assert held.trouble == "" and held.wait(HERE, ANN) == 4.0


def version(octets):
    return HEADER.pack(octets[:16], 2, octets[20:36], 0) + octets[HEADER.size:]


@pytest.mark.parametrize("damage", [
    lambda octets: octets[:20] + b"\xff" + octets[21:], version, lambda octets: octets[:20],
    lambda octets: bytes(SIZE), lambda octets: octets[:36] + b"\xff\xff\xff\xff" + octets[40:]])
def test_a_damaged_header_of_ours_means_a_new_file_for_all(held, again, path, damage):
    fail(held, 5)
    path.write_bytes(damage(path.read_bytes()))
    other = again()
    assert other.wait(HERE, ANN) == 0.0
    assert other.trouble == f"{path} was damaged, or of another version, and is begun anew."
    fail(other, 3)
    assert held.wait(HERE, ANN) == 1.0, "who had the old one open goes on with the new one"
    assert again().wait(HERE, ANN) == 2.0


@pytest.mark.parametrize("size", [0, HEADER.size, HEADER.size + 1, 30000, SIZE - 1, SIZE + 5])
def test_a_file_of_another_size_is_made_whole(held, again, path, size):
    fail(held, 5)
    held.succeeded(HERE, JOE)
    os.truncate(path, size)
    other = again()
    assert 0.0 <= other.wait(HERE, ANN) <= 30 and path.stat().st_size == SIZE
    assert bool(other.trouble) == bool(size)
    fail(held, 10)
    assert other.wait(HERE, ANN) == 30.0


@given(some.data())
def test_whatever_stands_in_the_slots_nothing_is_raised_and_nothing_is_beyond_its_bounds(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "guessers"
    held = Guessers(str(path), 30, clock=Clock())
    fail(held, 5)
    held.succeeded(HERE, JOE)
    octets = bytearray(path.read_bytes())
    places = [at for kind in (ADDRESS, NAME, PAIR) for at in range(kind.start, kind.end, kind.slot)
              if octets[at + HEAD]]
    for place in places * 2:
        octets[place + data.draw(some.integers(0, HEAD + 17))] = data.draw(some.integers(0, 255))
    path.write_bytes(octets)
    other = Guessers(str(path), 30, clock=Clock())
    for address, name in ((HERE, JOE), (HERE, ANN), (THERE, JOE)):
        assert 0.0 <= other.wait(address, name) <= 30
        other.failed(address, name)
        other.succeeded(address, name)
    assert all(0.5 <= failures <= 1000 and 0 <= wait <= 30 for _, _, failures, wait in other.held())
    assert other.trouble == ""
    held.close()
    other.close()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0, 1e300])
@pytest.mark.parametrize("field", range(4))
def test_numbers_that_are_none_are_no_slot_even_with_the_right_check_sum(held, clock, number, field):
    slot = slots.Slot(ADDRESS.start, ADDRESS.label(packed(HERE)), 5.0)
    numbers = [5.0, clock.now, 0.0, 0.0]
    numbers[field] = number
    octets = struct.pack("<4d", *numbers) + slot.label
    octets = struct.pack("<I", slots.binascii.crc32(octets)) + octets
    assert slots.unpacked(ADDRESS, slot.packed(clock.now), 0, clock.now).failures == 5.0
    assert slots.unpacked(ADDRESS, octets, 0, clock.now) is None


def test_a_slot_that_is_being_written_is_looked_at_again(held, monkeypatch):
    fail(held, 5)
    real, torn = os.pread, []

    def pread(file, size, place):
        octets = real(file, size, place)
        if size == BUCKET * ADDRESS.slot and place < ADDRESS.end and not torn:
            torn.append(place)
            at = octets.find(ADDRESS.label(packed(HERE)))
            octets = octets[:at - 30] + b"\xaa\xaa" + octets[at - 28:]
        return octets
    monkeypatch.setattr(slots.os, "pread", pread)
    assert held.wait(HERE, ANN) == 4.0 and torn


def test_a_file_that_is_cut_while_it_is_open_is_made_whole(held, path):
    fail(held, 5)
    os.truncate(path, HEADER.size)
    assert held.wait(HERE, ANN) == 0.0
    assert held.trouble == f"{path} had the wrong size; what is lost of it is forgotten."
    assert path.stat().st_size == SIZE


def test_a_damaged_file_is_not_removed_when_another_one_has_taken_its_place(held, path, tmp_path):
    held.wait(HERE, JOE)
    held.slots._discard(tmp_path.stat())
    assert path.exists() and held.trouble == ""


# -- a full disk -----------------------------------------------------------------------------------------------------

@forks
@pytest.mark.parametrize("limit", [0, 10, 20, HEADER.size, 5000, SIZE - 1])
def test_a_limit_of_file_size_stops_no_login(path, clock, limit):
    def attempt():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        held = Guessers(str(path), 30, clock=clock)
        fail(held, 5)
        held.succeeded(HERE, JOE)
        return f"{held.wait(HERE, ANN)} {held.held()} {held.trouble}"
    cause = "No space left on device" if limit in (10, 20) else "File too large"        # some octets went in, or none
    assert in_child(attempt) == f"0.0 [] {path} cannot be used: {cause}; guessers are not slowed down."
    held = Guessers(str(path), 30, clock=clock)
    fail(held, 5)
    assert held.wait(HERE, ANN) == 4.0, "what is left of that hinders nobody later"
    held.close()


def test_a_write_that_goes_in_half_is_a_full_disk(held, monkeypatch):
    fail(held, 3)
    real = os.pwrite
    monkeypatch.setattr(slots.os, "pwrite", lambda file, octets, place: real(file, octets[:10], place))
    fail(held, 1)
    assert os.strerror(errno.ENOSPC) in held.trouble
    monkeypatch.undo()
    assert held.wait(HERE, ANN) == 0.0       # the slot is not whole, and counts for none
    fail(held, 5)
    assert held.wait(HERE, ANN) == 4.0


@pytest.mark.root
def test_a_full_disk_stops_no_login(tmp_path, clock):
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "none", place], check=True)
    try:
        held = Guessers(str(place / "guessers"), 30, clock=clock)
        fail(held, 5)
        with pytest.raises(OSError), open(place / "ballast", "wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))
        assert held.wait(HERE, ANN) == 4.0, "where there is a page already it goes on"
        for number in range(100):
            held.failed(f"203.0.113.{number}", b"name%d" % number)
            held.succeeded(f"203.0.113.{number}", b"name%d" % number)
        assert "No space left on device" in held.trouble
        assert held.wait(HERE, ANN) == 8.0
        (place / "ballast").unlink()
        fail(held, 5, THERE)
        assert held.wait(THERE, ANN) == 4.0
        held.close()
        (place / "guessers").unlink()
        with pytest.raises(OSError), open(place / "ballast", "wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))
        fresh = Guessers(str(place / "guessers"), 30, clock=clock)
        fail(fresh, 5)
        assert fresh.wait(HERE, ANN) == 0.0 and "No space left on device" in fresh.trouble
        fresh.close()
    finally:
        subprocess.run(["umount", "-l", place], check=True)
