"""Who may come in. A chain of modules, each asked in turn for the account behind a name.

The contract of a module (popper.auth.NAME, or a dotted path of one's own):

    authenticate(user: str, password: bytes, options, address: str)
            -> Account                       the password is right
            -> None                          no such user here; the next module is asked
            raises Denied(text, reason)      there is such a user, and this is not good enough

address: the client's, "" where there is no network.

The first module that knows the name decides, so one name is never two people. When nobody knows it, a verification
of the usual cost is made all the same, and the caller waits out the rest: an unknown name costs what a known one
does.
"""

from popper.account import Account, Credentials, plain_name
from popper.errors import Denied, HungUp
from popper.library import library

LONGEST_PASSWORD = 511         # octets; libcrypt takes no more


def authenticate(credentials: Credentials, options, address: str = "") -> Account:
    """The account these credentials open, or Denied."""
    user = plain_name(credentials.user)
    password = credentials.password
    if user is not None and 0 < len(password) <= LONGEST_PASSWORD and b"\0" not in password:
        for module in modules(options):
            account = module.authenticate(user, password, options, address)
            if account is not None:
                return account
        reason = "no such user"
    else:
        reason = "not a name and a password"
    from popper.auth.crypt import burn
    burn(password[:LONGEST_PASSWORD])
    raise Denied("", reason)


def modules(options) -> list:
    """The modules of the chain, in order, imported. ImportError, whatever is wrong with one."""
    found = []
    for name in options.auth:
        try:
            found.append(library(name) if "." in name else __import__(f"popper.auth.{name}", fromlist=["*"]))
        except (ImportError, HungUp):
            raise
        except Exception as mistake:         # somebody's own module, and somebody's own mistake
            raise ImportError(f"{name}: {type(mistake).__name__}: {mistake}") from None
    return found
