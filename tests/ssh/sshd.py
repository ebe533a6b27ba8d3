"""A real OpenSSH sshd on loopback, and users of its own, with nothing of either on the host.

It runs in namespaces (amibuild/local/private.py): what Debian's packages hold lies over the
host's /usr there, with an /etc of its own and a systemd-run that is enough for a command.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.communicator.ssh_keys import Identity, new_identity, public_line
from amibuild.local import private
from amibuild.wait import Look, until
from tests.namespaces import may_mount

# Where .ci/setup unpacks what this host has not installed.
UNPACKED = Path(sys.prefix) / "unpacked"
ORDINARY, LOCKED_OUT = "builder", "stranger"
START_S = 10

_USERS = f"""\
root:x:0:0:root:/root:/bin/bash
sshd:x:901:65534::/run/sshd:/usr/sbin/nologin
{ORDINARY}:x:902:902::/:/bin/sh
{LOCKED_OUT}:x:903:903::/:/bin/sh
nobody:x:65534:65534::/:/usr/sbin/nologin
"""
_GROUPS = f"root:x:0:\n{ORDINARY}:x:902:\n{LOCKED_OUT}:x:903:\ntty:x:5:\nnogroup:x:65534:\n"
_SHADOW = "".join(f"{line.split(':')[0]}:*:1::::::\n" for line in _USERS.splitlines())

# The words of a unit that matter to its command; it is ended by its group, with all in it.
_SYSTEMD_RUN = """\
#!/bin/bash
set -eu
trap '' PIPE
setenv=()
while [ "$1" != -- ]; do
    case $1 in
        --unit=*) unit=/run/units/${1#*=} ;;
        --working-directory=*) cd "${1#*=}" ;;
        --setenv=*) setenv+=("${1#*=}") ;;
    esac
    shift
done
shift
mkdir -p /run/units
code=0
env -i PATH="$PATH" "${setenv[@]}" setsid --wait sh -c 'echo $$ >"$0"; exec "$@"' "$unit" "$@" ||
    code=$?
rm -f "$unit"
exit "$code"
"""
_SYSTEMCTL = """\
#!/bin/bash
case $1 in
    stop)
        [ -e "/run/units/$2" ] || exit 5
        echo "$2" >>@AT@/stopped
        kill -TERM -- "-$(cat "/run/units/$2")"
        while [ -e "/run/units/$2" ]; do sleep 0.02; done
        ;;
    restart) echo "$2" >>@AT@/restarted ;;
esac
"""
_BEGIN = """\
set -eu
at=$1 unpacked=$2
shift 2
mount -t overlay overlay -o "lowerdir=$at/usr:$unpacked/usr:/usr" /usr
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /root
mkdir /run/etc
# No overlay: without root none may lie over what has mounts in it, as a container's /etc has.
for name in alternatives environment ld.so.cache login.defs nsswitch.conf pam.d profile security; do
    cp -r "/etc/$name" /run/etc/ 2>/dev/null || true # old passwords are for nobody's eyes
done
for from in "$unpacked/etc/pam.d" "$at/etc/."; do
    [ ! -e "$from" ] || cp -r "$from" /run/etc/
done
mount --bind /run/etc /etc
mkdir -p /run/sshd /run/systemd/transient
touch /run/systemd/transient/amibuild-lease.timer
cp "$at/authorized" "$at/authorities" /run/
chmod 644 /run/authorized /run/authorities
exec "$@"
"""


needs_sshd = pytest.mark.skipif(
    not ((UNPACKED / "usr/sbin/sshd").exists() or proc.which("sshd")) or not may_mount(),
    reason="no sshd (make setup unpacks one), or this host allows no namespaces of our own",
)


# In a user namespace sudo is not the setuid program of its root.
needs_sudo = pytest.mark.skipif(os.geteuid() != 0, reason="sudo needs to be root's")


@dataclass(frozen=True)
class Sshd:
    """One that runs, and was given the machine's half of `identity`."""

    folder: Path
    port: int
    identity: Identity

    @property
    def said(self) -> str:
        """Its log."""
        return (self.folder / "log").read_text()

    def asked_systemd(self, verb: str) -> list[str]:
        file = self.folder / verb
        return file.read_text().split() if file.exists() else []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def sshd(
    folder: Path,
    identity: Identity | None = None,
    *,
    admitted: Sequence[str] | None = None,
    authority: str = "",
    settings: str = "",
) -> Iterator[Sshd]:
    """It takes the user's key of `identity`, or those in `admitted`, and certificates of the
    `authority`, a public key. `settings` are more lines of its configuration."""
    identity = identity or new_identity()
    found = Sshd(folder, free_port(), identity)
    keys = [public_line(identity.user)] if admitted is None else admitted
    for name, content, mode in (
        ("host_key", identity.host_key, 0o600),
        ("authorized", "".join(f"{key}\n" for key in keys), 0o644),
        ("authorities", f"{authority}\n", 0o644),
        ("sshd_config", _config(found, settings), 0o644),
        ("etc/passwd", _USERS, 0o644),
        ("etc/group", _GROUPS, 0o644),
        ("etc/hosts", f"127.0.0.1 localhost {socket.gethostname()}\n", 0o644),
        ("etc/shadow", _SHADOW, 0o600),
        ("etc/sudoers", f"{ORDINARY} ALL=(ALL) NOPASSWD: ALL\n", 0o440),
        ("usr/bin/systemd-run", _SYSTEMD_RUN, 0o755),
        ("usr/bin/systemctl", _SYSTEMCTL.replace("@AT@", str(folder)), 0o755),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)
    (UNPACKED / "usr").mkdir(parents=True, exist_ok=True)
    (UNPACKED / "etc").mkdir(exist_ok=True)
    program = UNPACKED / "usr/sbin/sshd"
    begin = ["sh", "-c", _BEGIN, "sh", str(folder), str(UNPACKED)]
    begin += ["/usr/sbin/sshd" if program.exists() else str(proc.which("sshd"))]
    begin += ["-D", "-e", "-f", str(folder / "sshd_config")]
    with (folder / "log").open("wb") as log:
        process = proc.start(private.wrap(begin), stdout=log, stderr=log)
    try:
        until(lambda: _answers(found, process), what="sshd", timeout_s=START_S)
        yield found
    finally:
        process.kill()
        process.wait()


def _answers(found: Sshd, process: proc.Process) -> Look[bool]:
    assert process.poll() is None, found.said
    try:
        with socket.create_connection(("127.0.0.1", found.port), timeout=1) as connection:
            return Look("answers", connection.recv(4) == b"SSH-" or None)
    except OSError:
        return Look("not yet")


def _config(found: Sshd, settings: str) -> str:
    return f"""\
{settings}
ListenAddress 127.0.0.1:{found.port}
HostKey {found.folder}/host_key
AuthorizedKeysFile /run/authorized
TrustedUserCAKeys /run/authorities
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
LogLevel VERBOSE
"""


@contextmanager
def agent(folder: Path, *keys: Path) -> Iterator[Path]:
    """An ssh-agent that holds those private keys; its socket."""
    path = folder / "agent"
    process = proc.start(private.bound(["ssh-agent", "-D", "-a", str(path)]))
    try:
        until(lambda: Look("there", path.exists() or None), what="ssh-agent", timeout_s=START_S)
        for key in keys:
            proc.run(["ssh-add", "-q", key], env={"SSH_AUTH_SOCK": str(path)})
        yield path
    finally:
        process.kill()
        process.wait()


def keygen(*words: str | Path) -> None:
    proc.run(["ssh-keygen", "-q", *words], env={"HOME": os.devnull})


def private_key(path: Path, *, passphrase: str = "") -> str:
    """Makes a key of one's own; its public half, without the comment."""
    keygen("-t", "ed25519", "-N", passphrase, "-f", path)
    return shlex.join(path.with_suffix(".pub").read_text().split()[:2])
