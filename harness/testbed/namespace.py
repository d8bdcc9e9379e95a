"""One private network namespace for this process: whatever is made in it vanishes with the process.

Rule: enter before any thread exists (a user namespace cannot be entered by a process with threads), once, and never leave.
The namespace has no name and no mount: nothing holds it but the processes inside, so nothing can be left behind.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from harness.testbed.errors import NoNamespace
from harness.testbed.process import CLONE_NEWNET, CLONE_NEWUSER, unshare


def enter() -> None:
    """Move this process into a network namespace of its own: as root a plain one, otherwise with a user namespace in which
    it is root. Raises NoNamespace with the remedy."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWNET if uid == 0 else CLONE_NEWUSER | CLONE_NEWNET)
    except OSError as error:
        if error.errno == errno.ENOSPC:  # namespaces(7): more than the limit allows
            hint = "raise the limits on namespaces: sysctl user.max_net_namespaces, user.max_user_namespaces"
            raise NoNamespace("no network namespace: there are as many as may be", hint) from error
        raise NoNamespace(f"no network namespace: {error.strerror}", _remedy(uid)) from error
    if uid != 0:
        _map_root(uid, gid)
    quiet()


def _map_root(uid: int, gid: int) -> None:
    """Be root inside (user_namespaces(7): setgroups must be denied before an unprivileged gid_map is written)."""
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        raise NoNamespace(f"a user namespace without rights: {error.strerror}", _remedy(uid)) from error


def quiet() -> None:
    """Keep the namespace's own kernel silent on every interface to come: no IPv6 router solicitations, no MLD. A frame on a
    tap is then the guest's or ours."""
    for scope in ("all", "default"):
        knob = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
        if knob.exists():
            knob.write_text("1")


def _remedy(uid: int) -> str:
    if uid == 0:
        return (
            "this root lacks CAP_SYS_ADMIN (a container?): start the container with --privileged or --cap-add SYS_ADMIN"
        )
    return (
        "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces > 0; on Ubuntu also "
        "kernel.apparmor_restrict_unprivileged_userns=0), or run as root"
    )
