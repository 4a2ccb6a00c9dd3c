"""Is this the password? The system's libcrypt is asked first: it knows every scheme the system's files use, yescrypt
included, and takes octets as they came. passlib answers for what libcrypt lacks (argon2, a libcrypt of old)."""

import ctypes
from _operator import _compare_digest

from popper.errors import Denied
from popper.library import library

TROUBLE = "System error, can't verify passwords."          # what the client is told when that cannot be found out
LIBRARIES = ("libcrypt.so.1", "libcrypt.so.2", "libcrypt.so", None)      # None: the C library itself (musl)
DUMMIES = (b"$y$j9T$F5Jx5fExrKuPp53xLKQ..1$", b"$6$saltsaltsaltsalt$")
SCHEMES = ("argon2", "bcrypt", "bcrypt_sha256", "scrypt", "sha512_crypt", "sha256_crypt", "md5_crypt", "apr_md5_crypt",
           "pbkdf2_sha256", "pbkdf2_sha512", "sha1_crypt", "sun_md5_crypt", "bsdi_crypt", "des_crypt")
_crypt = None


def is_locked(stored: bytes) -> bool:
    """Whether a hash is one that no password has: empty, or put out of use."""
    return not stored or stored[:1] in (b"!", b"*")


def verify(password: bytes, stored: bytes) -> bool:
    """Whether `stored` is the hash of `password`. An empty password or a locked or empty hash is never right."""
    if not password or is_locked(stored) or b"\0" in password + stored:
        burn(password)                       # a locked account costs what any other does
        return False
    computed = hashed(password, stored)
    if computed is not None:
        return bool(_compare_digest(computed, stored))
    return _verify_by_passlib(password, stored)


def hashed(password: bytes, setting: bytes) -> "bytes | None":
    """What libcrypt makes of a password and a hash or salt, or None when it does not know the scheme."""
    computed = prepare()(password, setting) if prepare() else None
    return None if computed is None or computed.startswith(b"*") else computed


def burn(password: bytes) -> None:
    """Do the work of a verification, for nobody."""
    password = password.replace(b"\0", b"") or b"x"
    if not any(hashed(password, dummy) for dummy in DUMMIES):
        try:
            _verify_by_passlib(password, DUMMIES[1] + b"x" * 86)
        except Denied:
            pass                             # what it would say is about our dummy


def prepare():
    """libcrypt's crypt, or False. To be called before a process forks those that will need it."""
    global _crypt
    if _crypt is None:
        _crypt = False
        for name in LIBRARIES:
            try:
                found = ctypes.CDLL(name).crypt
            except (OSError, AttributeError):
                continue
            found.restype, found.argtypes = ctypes.c_char_p, (ctypes.c_char_p, ctypes.c_char_p)
            _crypt = found
            break
    return _crypt


def _verify_by_passlib(password: bytes, stored: bytes) -> bool:
    try:
        context = library("passlib.context").CryptContext(schemes=list(SCHEMES))
        return bool(context.verify(password, stored.decode("ascii")))
    except ImportError:
        raise Denied("", "libcrypt does not know this kind of hash, and passlib is not installed") from None
    except (ValueError, TypeError, RuntimeError) as error:
        # MissingBackendError and UnknownHashError are among these; so is what passlib 1.7 says to bcrypt 5.
        raise Denied("", f"the hash cannot be verified: {type(error).__name__}: {error}") from None
