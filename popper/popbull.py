"""The receipt of bulletins, `.popbull`: which was the highest that a user received (ucb-popper.md 6).

It is in the user's own directory, or in one where everybody may make files: read with suspicion, never followed
anywhere, and written whole or not at all.
"""

import errno
import os

from popper.account import Account
from popper.errors import PERMANENT, TEMPORARY, Refused
from popper.storage.locks import complaint_about

DIGITS_MOST = 18               # of a number: what fits in the original's on machines of today
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Damaged(Refused):
    """A receipt of which nobody can tell the number."""


class Popbull:
    """The receipt of a user: a file of one line, the highest number received, in decimal."""

    def __init__(self, path: str, fsync: bool = True) -> None:
        self.path = path
        self.fsync = fsync
        self.private = ""                    # the file with the line that `write` will put in place
        self.number = 0                      # and what it says

    def read(self) -> "int | None":
        """The number; None: no receipt yet. Raises Damaged, or Refused for a file that is not to be touched."""
        try:
            descriptor = os.open(self.path, READ)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Refused(f"Unable to open .popbull file {self.path}: {told(error)}; no bulletins", PERMANENT) from None
        try:
            complaint = complaint_about(os.fstat(descriptor))
            octets = b"" if complaint else os.read(descriptor, 64)
        except OSError as error:
            complaint = f"cannot be read: {told(error)}"
        finally:
            try:
                os.close(descriptor)
            except OSError:
                pass
        if complaint:
            raise Refused(f"{self.path} {complaint}; no bulletins", PERMANENT)
        line = octets.strip()
        # Without its end a line may be half a number, and give all bulletins anew.
        if not octets.endswith(b"\n") or not line.isdigit() or len(line) > DIGITS_MOST:
            raise Damaged(f"{self.path} {'holds no number' if octets else 'is empty'}", PERMANENT)
        return int(line)

    def prepare(self, number: int) -> None:
        """Write the line into a file beside: whether there are room and right shows before anything is added.

        Raises Refused.
        """
        self.discard()
        try:
            descriptor = self._open_private()
        except OSError as error:
            raise Refused(f"Unable to open {self.path} for writing: {told(error)}; no bulletins", TEMPORARY) from None
        try:
            try:
                line = b"%d\n" % number
                if os.write(descriptor, line) < len(line):
                    raise OSError(errno.ENOSPC, "No space left on device")
                if self.fsync:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            self.discard()
            raise Refused(f"Unable to write to {self.path}: {told(error)}; no bulletins", TEMPORARY) from None
        self.number = number

    def write(self, number: int) -> None:
        """Put a number in place. Raises Refused."""
        if not self.private or self.number != number:
            self.prepare(number)
        try:
            os.rename(self.private, self.path)
        except OSError as error:
            self.discard()
            raise Refused(f"Unable to write to {self.path}: {told(error)}; no bulletins", TEMPORARY) from None
        self.private = ""
        if self.fsync:
            self._sync_name()

    def discard(self) -> None:
        """Forget what was prepared."""
        if self.private:
            try:
                os.unlink(self.private)
            except OSError:
                pass
            self.private = ""

    def _open_private(self) -> int:
        """A new file beside the receipt. The usual name was left by one that was killed, or, where everybody may make
        files, is another's."""
        for name in (f"{self.path}.new", f"{self.path}.{os.urandom(8).hex()}"):
            try:
                os.unlink(name)
            except OSError:
                pass
            try:
                descriptor = os.open(name, MAKE, 0o600)
            except FileExistsError as error:
                taken = error
                continue
            self.private = name
            return descriptor
        raise taken

    def _sync_name(self) -> None:
        """Make the name durable where one may; what it names is."""
        try:
            directory = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError:
            pass


def popbull_path(account: Account, options) -> str:
    """Where the receipt of an account is: in popbull_dir, else in its home; "": it has no place.

    The home of whoever runs popper is nobody else's: it would make one receipt for all users of a password file.
    """
    if options.popbull_dir:
        return f"{options.popbull_dir}/{account.user}.popbull"
    own = account.home.startswith("/") and (account.uid is not None or account.home != os.path.expanduser("~"))
    return f"{account.home.rstrip('/')}/.popbull" if own else ""


def told(error: OSError) -> str:
    """What the system says, for a log line."""
    return f"{error.strerror} ({error.errno})"
