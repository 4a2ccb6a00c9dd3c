"""Root, and the way out of it: short enough to read in one sitting.

Who runs what, when popper is started as root, in a session on a connection (inetd), as a daemon, or both:

    both    root          launch cli options library started inetd limits
                          privilege login auth auth.* guessers slots access wrappers
                          serve session conversation wire channel stranger handover peer
                          account errors journal tally
    inetd   root          separate
    inetd   user          separate
    daemon  root          daemon notify detach house loop listeners reception crew logins sessions
                          forking control takeover
    both    unprivileged  stranger proxy conversation session wire channel
                          __init__ account errors handover journal peer privilege tally
    both    nobody        peer privilege
    daemon  nobody        looker handover
    both    user          login serve session conversation wire channel maildrop storage.* bulletins popbull submit xtnd
                          account errors inetd journal peer privilege tally
    daemon  user          logins sessions
    both    keeper        storage.keeper storage.locks

root reads nothing from the network: it is handed user name, password, and octets behind these that only the user looks
at, and it forks the others. unprivileged: `unprivileged_user`, in an empty root directory; it speaks AUTHORIZATION.
nobody asks DNS. user: from `become` on; the mailbox is his. keeper: his uid, and the spool's group, for the locks.
tests/test_privilege.py compares this table with sessions. Started by an ordinary user, popper is that user throughout.
"""

import ctypes
import os
import pwd
import resource
import syslog

from popper.errors import PERMANENT, ConfigError, Refused

NOBODY = 65534
OWN_ACCOUNT = "popper"
DESCRIPTORS = 1048576          # there are none beyond
PLACES = ("/run/popper", "/run", "/tmp")     # where an empty directory is made for a moment


def become(name: str, uid: int, gid: int, spool_gid: "int | None" = None) -> None:
    """Give up root for good: groups, gid, uid, in this order, each checked; then prove that there is no way back.

    spool_gid: a group that stays the effective one until `shed_group`, for the lock keeper to be forked with.
    Raises Refused before anything changed; what fails later ends the process.
    """
    if os.geteuid() != 0:
        if uid != os.geteuid():
            raise Refused("System error, this server cannot become you.", PERMANENT, f"not root, and not uid {uid}")
        return
    groups = groups_of(name, uid, gid)
    effective = gid if spool_gid is None else spool_gid
    try:
        os.setgroups(groups)
        os.setresgid(gid, effective, gid)
        os.setresuid(uid, uid, uid)
        ours = os.getresuid() == (uid, uid, uid) and os.getresgid() == (gid, effective, gid)
        if not ours or set(os.getgroups()) - {effective} != set(groups) - {effective}:
            _die("groups, gid or uid are not what they were set to")
        _prove_irreversible()
    except (OSError, OverflowError) as error:
        _die(str(error))


def groups_of(name: str, uid: int, gid: int) -> "list[int]":
    """The groups of a system account; one that is only in a file of ours may share its name, never its groups."""
    try:
        known = pwd.getpwnam(name).pw_uid == uid
    except KeyError:
        known = False
    return os.getgrouplist(name, gid) if known else [gid]


def plainly(work):
    """Do something as the user without the spool's group, which is kept at hand until `shed_group`; -> its result."""
    user, spool, _ = os.getresgid()
    os.setresgid(user, user, spool)
    try:
        return work()
    finally:
        os.setresgid(user, spool, user)


def shed_group() -> None:
    """Give up the spool's group for good."""
    gid = os.getgid()
    os.setresgid(gid, gid, gid)
    if os.getresgid() != (gid, gid, gid):
        _die("the spool's group would not go")


def become_nobody(ids: "tuple[int, int]" = (NOBODY, NOBODY)) -> None:
    """In a forked child: no groups, nobody's uid and gid. Nothing to do for an ordinary user."""
    if os.geteuid() == 0:
        uid, gid = ids
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        _prove_irreversible()


def unprivileged(name: str) -> "tuple[int, int]":
    """uid and gid for whoever speaks to strangers: of that account; of OWN_ACCOUNT, or nobody, where none is named."""
    for known in (name,) if name else (OWN_ACCOUNT, "nobody"):
        try:
            entry = pwd.getpwnam(known)
        except KeyError:
            continue
        if not entry.pw_uid:
            break
        return entry.pw_uid, entry.pw_gid
    if name:
        raise ConfigError(f"unprivileged_user: {name} is no account that could be used; expected one, and not root")
    return NOBODY, NOBODY


def confine(ids: "tuple[int, int]", descriptors: int) -> None:
    """In a forked child that is to speak to strangers: an empty root directory that nothing can be put into, no
    groups, no way to gain a privilege by running a program (no_new_privs), no process, no core, few descriptors.
    All modules it needs have been imported. An ordinary user has no other root and no other uid to give."""
    if os.geteuid() == 0:
        place = next((each for each in PLACES if os.path.isdir(each)), "/")
        empty = f"{place}/popper.empty.{os.getpid()}.{os.urandom(8).hex()}"
        os.mkdir(empty, 0)
        try:
            os.chdir(empty)
        finally:
            os.rmdir(empty)                  # a directory without a name: no file can ever be made in it
        os.chroot(".")
        become_nobody(ids)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    gain_nothing()


def gain_nothing() -> None:
    """No program that is run from now on gains a privilege by its mode bits (prctl(2), PR_SET_NO_NEW_PRIVS)."""
    try:
        ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
    except (OSError, AttributeError):
        pass                                 # not this system's


def close_all_but(*kept: int) -> None:
    """In a forked child: close what it has of its parent, but for these. Who logs has to open the log anew: the C
    library would go on writing to the number of its socket, whatever that number is by then."""
    syslog.closelog()
    begin = 0
    for fd in sorted({*kept, DESCRIPTORS}):
        if begin < fd:                       # os.closerange(0, 0) would close everything
            os.closerange(begin, fd)
        begin = fd + 1


def _prove_irreversible() -> None:
    try:
        os.setuid(0)
    except PermissionError:
        return
    _die("there is a way back to root")


def _die(why: str) -> None:
    """End here and now: half root is worse than no session."""
    syslog.syslog(syslog.LOG_CRIT, f"privileges cannot be given up: {why}")
    os._exit(70)
