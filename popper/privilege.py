"""Root, and the way out of it: short enough to read in one sitting.

Under a super-server that starts popper as root, this process is root from its start to `become`, and runs

    launch, cli, options, inetd or daemon   before the greeting
    serve, session, wire, channel           AUTHORIZATION: command lines of a stranger
    peer                                    forks; the fork that asks DNS is nobody
    login, auth.*                           the password file or the shadow file, libcrypt
    account, errors, journal, library, tally
                                            in the service of these

and the user from then on: storage.*, bulletins, the commands of TRANSACTION, UPDATE, and sendmail for XTND XMIT.
`storage.keeper` may leave a keeper, with the user's uid and the spool's group. tests/test_privilege.py compares this
list with a session. Run as an ordinary user, popper is that user throughout.
"""

import os
import pwd
import syslog

from popper.errors import PERMANENT, Refused

NOBODY = 65534


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


def shed_group() -> None:
    """Give up the spool's group for good."""
    gid = os.getgid()
    os.setresgid(gid, gid, gid)
    if os.getresgid() != (gid, gid, gid):
        _die("the spool's group would not go")


def become_nobody() -> None:
    """In a forked child: no groups, nobody's uid and gid. Nothing to do for an ordinary user."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        _prove_irreversible()


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
