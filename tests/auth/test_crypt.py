"""Passwords against hashes of every scheme the system's libcrypt knows, and those passlib answers for."""

import ctypes
import os
import shutil
import subprocess
import sys

import pytest

from popper.auth import crypt
from popper.auth.crypt import DUMMIES, burn, hashed, verify
from popper.errors import AUTH, Denied

# passlib 1.7 imports Python's own crypt module, which is deprecated there.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PASSWORDS = [b"secret", b"two words ", "gr\u00fc\u00dfe".encode("latin-1"), "gr\u00fc\u00dfe \u20ac".encode(),
             b"\xff\xfe\x80", b"\t\x01\x7f", b"a:b", b"$6$", b"*", b"!", b"x" * 72]
PREFIXES = {"yescrypt": b"$y$", "gost-yescrypt": b"$gy$", "scrypt": b"$7$", "SHA-512": b"$6$", "SHA-256": b"$5$",
            "MD5": b"$1$", "bcrypt": b"$2b$", "bcrypt of old": b"$2a$", "DES": b"", "BSDi DES": b"_"}
CHEAP = {b"$y$": 1, b"$gy$": 1, b"$7$": 6, b"$2b$": 4, b"$2a$": 4}


def salt(prefix):
    """A salt for a scheme, from libcrypt itself, or a skip."""
    gensalt = getattr(crypt.prepare() and ctypes.CDLL("libcrypt.so.1"), "crypt_gensalt", None)
    if gensalt is None:
        pytest.skip("this libcrypt makes no salts")
    gensalt.restype = ctypes.c_char_p
    gensalt.argtypes = (ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_int)
    made = gensalt(prefix, CHEAP.get(prefix, 0), os.urandom(32), 32)
    if made is None:
        pytest.skip("this libcrypt does not know the scheme")
    return made


@pytest.mark.parametrize("prefix, password", [
    pytest.param(prefix, password, id=f"{scheme}-{password}") for scheme, prefix in PREFIXES.items()
    for password in (PASSWORDS[2:4] if scheme == "scrypt" else PASSWORDS)])      # which takes half a second at least
def test_every_scheme_of_the_system(prefix, password):
    """The octets are those that came, in whatever character set; no other password is right."""
    stored = hashed(password, salt(prefix))
    assert stored.startswith(prefix) and password not in (stored, stored[len(prefix):])
    assert verify(password, stored) is True
    assert verify(b"y" + password, stored) is False
    if prefix not in (b"", b"_"):   # which knows eight octets of seven bits
        assert verify(password[:-1], stored) is False


def test_one_character_set_is_not_another():
    stored = hashed("gr\u00fc\u00dfe".encode("latin-1"), b"$5$saltsalt$")
    assert not verify("gr\u00fc\u00dfe".encode(), stored)


OPENSSL = {"SHA-512": "-6", "SHA-256": "-5", "MD5": "-1", "Apache's MD5, which is passlib's": "-apr1"}


@pytest.mark.parametrize("flag", OPENSSL.values(), ids=OPENSSL)
@pytest.mark.parametrize("password", [b"secret", "gr\u00fc\u00dfe".encode("latin-1")])
def test_hashes_that_openssl_made(flag, password):
    if not shutil.which("openssl"):
        pytest.skip("no openssl")
    stored = subprocess.run(["openssl", "passwd", flag, "-stdin"], input=password + b"\n", check=True,
                            capture_output=True).stdout.strip()
    assert verify(password, stored) is True
    assert verify(password + b"x", stored) is False


@pytest.mark.parametrize("stored", [
    b"abJnggxhB/yWI",                                                                # DES
    b"$1$saltsalt$qjXMvbEw8oaL.CzflDtaK/",
    b"$5$saltsalt$gOjOtoMpVhru2uyjeJSEc/JaLQWOXMNmlOnj6T4AtC.",
])
def test_hashes_of_another_machine(stored):
    """Worked out by passlib's own code, which shares nothing with libcrypt."""
    assert verify(b"password", stored) is True
    assert verify(b"Password", stored) is False


# -- what is never right ---------------------------------------------------------------------------------------------

GOOD = hashed(b"secret", b"$5$saltsalt$")


@pytest.mark.parametrize("stored", [b"", b"!", b"!!", b"*", b"*LK*", b"!" + GOOD, b"*" + GOOD, b"*0", b"*1"])
@pytest.mark.parametrize("password", [b"secret", b"*0"])
def test_a_locked_or_empty_hash(password, stored):
    """CVE-less but everybody's: an empty field lets nobody in."""
    assert verify(password, stored) is False


@pytest.mark.parametrize("password, stored", [
    (b"", GOOD), (b"", hashed(b"", b"$5$saltsalt$")), (b"\0", GOOD), (b"secret\0", GOOD), (b"secret\0more", GOOD),
    (b"secret", GOOD + b"\0"), (b"secret", b"\0"), (b"", b"")])
def test_empty_passwords_and_nul(password, stored):
    """Security.md row 23: NUL is no end of a password."""
    assert verify(password, stored) is False


@pytest.mark.parametrize("stored", [
    b"secret", b"x", b"xx", GOOD[:-1], GOOD + b"x", b"$5$", b"$5$saltsalt", b"$99$salt$hash", b"{SSHA}c2VjcmV0",
    b"{PLAIN}secret", b"$y$", b"\xff\xfe", b" " + GOOD, GOOD + b" ", b"$", b"::", b"$2b$99$" + b"." * 53])
def test_what_is_no_hash_lets_nobody_in(stored):
    """Least of all who types what stands there."""
    for password in (b"secret", stored):
        try:
            assert verify(password, stored) is False
        except Denied as denied:
            assert denied.code == AUTH and denied.text == "" and "secret" not in denied.reason


@pytest.mark.parametrize("length", [511, 512, 513, 600, 1024, 5000])
def test_a_very_long_password(length):
    """CVE-1999-0006: some libcrypts take 512 octets at most."""
    for stored in (GOOD, DUMMIES[0] + b"x" * 43):
        try:
            assert verify(b"x" * length, stored) is False
        except Denied:
            pass
    burn(b"x" * length)


# -- passlib ---------------------------------------------------------------------------------------------------------

def passlib_hash(name, password):
    """A hash by one of passlib's own, or a skip."""
    handlers = pytest.importorskip("passlib.hash")
    try:
        handler = getattr(handlers, name)
        if name.startswith("pbkdf2"):
            handler = handler.using(rounds=10)
        return handler.hash(password).encode()
    except Exception as error:
        if "backend" in str(error).lower():
            pytest.skip(f"passlib cannot make {name} here")
        raise


@pytest.mark.parametrize("scheme", ["pbkdf2_sha256", "pbkdf2_sha512", "apr_md5_crypt", "argon2"])
@pytest.mark.parametrize("password", [b"secret", "gr\u00fc\u00dfe".encode("latin-1"), "gr\u00fc\u00dfe".encode()])
def test_what_libcrypt_lacks(scheme, password):
    stored = passlib_hash(scheme, password)
    assert hashed(password, stored) is None
    assert verify(password, stored) is True
    assert verify(password + b"x", stored) is False


def test_without_passlib_an_unknown_scheme_says_so(monkeypatch):
    stored = passlib_hash("pbkdf2_sha256", b"secret")
    monkeypatch.setitem(sys.modules, "passlib.context", None)        # importing it fails
    with pytest.raises(Denied) as caught:
        verify(b"secret", stored)
    assert caught.value.reason == "libcrypt does not know this kind of hash, and passlib is not installed"
    assert verify(b"secret", GOOD) is True
    burn(b"x" * 600)


def test_without_libcrypt_passlib_knows_the_usual_schemes(monkeypatch):
    monkeypatch.setattr(crypt, "_crypt", False)
    assert hashed(b"secret", GOOD) is None
    assert verify(b"secret", GOOD) is True
    assert verify(b"Secret", GOOD) is False
    burn(b"secret")


# -- work for nobody -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("password", [b"", b"x", b"\0", b"a\0b", b"\xff" * 100, b"x" * 1000])
def test_burning_takes_any_password(password):
    burn(password)


def test_burning_costs_what_a_verification_costs():
    """1939.61, sec.08: the first dummy is of the kind that Debian gives its users; libcrypt does all of it."""
    computed = hashed(b"secret", DUMMIES[0])
    assert computed is None or computed.startswith(DUMMIES[0])
    assert hashed(b"secret", DUMMIES[1]).startswith(DUMMIES[1])
    assert not verify(b"secret", DUMMIES[0]) and not verify(b"secret", DUMMIES[1])
