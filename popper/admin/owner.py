"""Whose a file is, and doing something as him: root, for whom this is, is not to touch what users own."""

import json
import os
import pwd
import traceback

from popper.account import Account
from popper.admin.console import Failed
from popper.privilege import NOBODY


def owner_of(paths) -> "int | None":
    """Whose the first of these is that is there."""
    for path in paths:
        try:
            return os.lstat(path).st_uid
        except (FileNotFoundError, NotADirectoryError):
            pass
    return None


def account_of(uid: int) -> Account:
    """Who has a uid; one that the system does not know has no groups either."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Account(str(uid), uid, NOBODY)
    return Account(entry.pw_name, uid, entry.pw_gid, entry.pw_dir)


def apart(act, *arguments):
    """What act(*arguments) gives, in a child that may become somebody for good. The answer comes as JSON.

    Raises Failed when the child ended without an answer.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        status = os.EX_SOFTWARE
        try:
            os.close(reader)
            octets = json.dumps(act(*arguments)).encode()
            while octets:
                octets = octets[os.write(writer, octets):]
            status = os.EX_OK
        except KeyboardInterrupt:
            pass                             # the parent was told as well
        except Exception:
            traceback.print_exc()            # a bug; nobody above us would tell
        finally:
            os._exit(status)
    os.close(writer)
    try:
        with open(reader, "rb") as answer:
            octets = answer.read()
    finally:
        os.waitpid(child, 0)
    if not octets:
        raise Failed("a process of its own ended early; the system's log may say why", os.EX_SOFTWARE)
    return json.loads(octets)
