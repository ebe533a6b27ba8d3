"""Each hygiene rule passes on a clean disk and fails on one that breaks it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from amibuild import proc
from amibuild.library.load import bundled_provisioners

PROGRAM = bundled_provisioners() / "seal/hygiene.py"

Breaks = Callable[[Path], object]


def load_rules() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hygiene", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hygiene = load_rules()


def write(path: Path, text: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A sealed Debian, as far as the rules look at it."""
    root = tmp_path / "disk"
    for name, text in {
        "etc/machine-id": "",
        "etc/hostname": "localhost\n",
        "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
        "etc/fstab": "# nothing swaps\nPARTUUID=1 / ext4 defaults 0 1\n",
        "etc/passwd": "root:x:0:0:root:/root:/bin/bash\n"
        "svc-game:x:999:999::/var/lib/svc-game:/usr/sbin/nologin\n"
        "nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n",
        "etc/shadow": "root:*:1::::::\nsvc-game:!*:1::::::\nnobody:!:1::::::\n",
        "etc/ssh/sshd_config": "UsePAM yes\n",
        "root/.bashrc": "# Debian's own\n",
        "root/.ssh/known_hosts": "",
        "var/lib/apt/lists/lock": "",
        "var/log/dpkg.log": "",
        "usr/share/amibuild-platform/agent": "qemu-guest-agent\n",
        "var/lib/svc-game/kept": "x",
    }.items():
        write(root / name, text)
    for folder in ("tmp", "var/tmp", "home", "var/log/journal", "var/lib/cloud/seed"):
        (root / folder).mkdir(parents=True)
    (root / "var/lib/dbus").mkdir()
    (root / "var/lib/dbus/machine-id").symlink_to("/etc/machine-id")
    return root


def adds(name: str, text: str = "x") -> Breaks:
    return lambda root: write(root / name, text)


def appends(name: str, text: str) -> Breaks:
    return lambda root: write(root / name, (root / name).read_text() + text)


def links(name: str, target: str) -> Breaks:
    def make(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(target)

    return make


def makes_a_file_of_the_link(root: Path) -> None:
    (root / "var/lib/dbus/machine-id").unlink()
    write(root / "var/lib/dbus/machine-id")


# Rule, path that is told, what breaks it.
BROKEN: list[tuple[str, str, Breaks]] = [
    ("the machine id is empty", "/etc/machine-id", adds("etc/machine-id", "8f3\n")),
    ("the machine id is empty", "/etc/machine-id", lambda r: (r / "etc/machine-id").unlink()),
    ("the machine id is empty", "/var/lib/dbus/machine-id", makes_a_file_of_the_link),
    ("no ssh host keys", "/etc/ssh/ssh_host_rsa_key", adds("etc/ssh/ssh_host_rsa_key")),
    ("no ssh host keys", "/etc/ssh/ssh_host_rsa_key.pub", adds("etc/ssh/ssh_host_rsa_key.pub")),
    ("no authorized keys", "/root/.ssh/authorized_keys", adds("root/.ssh/authorized_keys")),
    (
        "no authorized keys",
        "/var/lib/svc-game/.ssh/authorized_keys2",
        adds("var/lib/svc-game/.ssh/authorized_keys2"),
    ),
    ("no authorized keys", "/etc/ssh/authorized_keys", adds("etc/ssh/authorized_keys")),
    ("no private keys and credentials", "/root/.ssh/id_ed25519", adds("root/.ssh/id_ed25519")),
    ("no private keys and credentials", "/root/.aws/credentials", adds("root/.aws/credentials")),
    ("no private keys and credentials", "/root/.netrc", adds("root/.netrc")),
    (
        "no private keys and credentials",
        "/etc/ssl/private/ssl-cert-snakeoil.key",
        adds("etc/ssl/private/ssl-cert-snakeoil.key"),
    ),
    ("no shell histories", "/root/.bash_history", adds("root/.bash_history")),
    ("no shell histories", "/root/.python_history", adds("root/.python_history", "")),
    ("no random seed", "/var/lib/systemd/random-seed", adds("var/lib/systemd/random-seed")),
    (
        "no random seed",
        "/var/lib/systemd/credential.secret",
        adds("var/lib/systemd/credential.secret"),
    ),
    ("no network leases", "/var/lib/dhcp/dhclient.leases", adds("var/lib/dhcp/dhclient.leases")),
    ("no network leases", "/var/lib/dhcpcd/eth0.lease", adds("var/lib/dhcpcd/eth0.lease")),
    ("no network leases", "/var/lib/dhcpcd/duid", adds("var/lib/dhcpcd/duid")),
    (
        "no traces of cloud-init's first boot",
        "/var/lib/cloud/instance",
        links("var/lib/cloud/instance", "/var/lib/cloud/instances/i-0a"),
    ),
    (
        "no traces of cloud-init's first boot",
        "/var/lib/cloud/instances",
        adds("var/lib/cloud/instances/i-0a/user-data.txt"),
    ),
    (
        "no traces of cloud-init's first boot",
        "/var/lib/cloud/scripts/per-boot/amibuild-lease",
        adds("var/lib/cloud/scripts/per-boot/amibuild-lease"),
    ),
    (
        "no traces of cloud-init's first boot",
        "/var/lib/cloud/seed",
        adds("var/lib/cloud/seed/nocloud/user-data"),
    ),
    (
        "no traces of cloud-init's first boot",
        "/etc/sudoers.d/90-cloud-init-users",
        adds("etc/sudoers.d/90-cloud-init-users"),
    ),
    (
        "no traces of cloud-init's first boot",
        "/etc/systemd/network/10-cloud-init-ens5.network",
        adds("etc/systemd/network/10-cloud-init-ens5.network"),
    ),
    ("no agent registration", "/var/lib/amazon/ssm/i-0a", adds("var/lib/amazon/ssm/i-0a/x")),
    ("no agent registration", "/var/lib/amazon/ssm/Vault", adds("var/lib/amazon/ssm/Vault/x")),
    ("no package lists and archives", "/var/lib/apt/lists/x", adds("var/lib/apt/lists/x")),
    (
        "no package lists and archives",
        "/var/cache/apt/archives/x.deb",
        adds("var/cache/apt/archives/x.deb"),
    ),
    (
        "no journal and no logs",
        "/var/log/journal/8f3/system.journal",
        adds("var/log/journal/8f3/system.journal", ""),
    ),
    ("no journal and no logs", "/var/log/apt/history.log", adds("var/log/apt/history.log")),
    (
        "no records of logins and timers",
        "/var/lib/wtmpdb/wtmp.db",
        adds("var/lib/wtmpdb/wtmp.db", ""),
    ),
    (
        "no records of logins and timers",
        "/var/lib/systemd/timers/stamp-x.timer",
        adds("var/lib/systemd/timers/stamp-x.timer", ""),
    ),
    (
        "no memory of programs",
        "/var/lib/systemd/coredump/core.x.zst",
        adds("var/lib/systemd/coredump/core.x.zst"),
    ),
    ("no memory of programs", "/var/crash/x", adds("var/crash/x")),
    (
        "no service has made its first password",
        "/var/lib/svc-game/first-password",
        adds("var/lib/svc-game/first-password"),
    ),
    ("no temporary files", "/tmp/x", adds("tmp/x", "")),
    ("no temporary files", "/var/tmp/x", links("var/tmp/x", "/nowhere")),
    ("no users but the system's", "/etc/passwd", appends("etc/passwd", "a:x:1000:1::/x:/bin/sh\n")),
    ("no users but the system's", "/home/admin", adds("home/admin/x")),
    ("no password", "/etc/shadow", appends("etc/shadow", "a:$y$j9T$x:1::::::\n")),
    ("no password", "/etc/shadow", appends("etc/shadow", "a:!$y$j9T$x:1::::::\n")),
    ("no password", "/etc/shadow", appends("etc/shadow", "a::1::::::\n")),
    ("no password", "/etc/shadow-", adds("etc/shadow-", "root:$6$x:1::::::\n")),
    ("a generic host name", "/etc/hostname", adds("etc/hostname", "ip-10-0-0-7\n")),
    ("a generic host name", "/etc/hosts", appends("etc/hosts", "127.0.1.1 ip-10-0-0-7\n")),
    (
        "no policy that keeps services from starting",
        "/usr/sbin/policy-rc.d",
        adds("usr/sbin/policy-rc.d"),
    ),
    ("no files of the bake", "/var/lib/amibuild-x", adds("var/lib/amibuild-x")),
    ("no files of the bake", "/root/amibuild.log", adds("root/amibuild.log")),
    ("no swap", "/etc/fstab", appends("etc/fstab", "/swapfile none swap sw 0 0\n")),
    ("no swap", "/swapfile", adds("swapfile")),
]


def inspect(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = hygiene.inspect(root)
    return found


def test_a_clean_disk_passes_every_rule(disk: Path) -> None:
    assert inspect(disk) == {"passed": list(hygiene.RULES), "failed": []}


@pytest.mark.parametrize(
    ("rule", "path", "breaks"), BROKEN, ids=[f"{rule}-{path}" for rule, path, _ in BROKEN]
)
def test_a_broken_rule_is_told_with_its_path(
    disk: Path, rule: str, path: str, breaks: Breaks
) -> None:
    breaks(disk)
    found = inspect(disk)
    assert [(f["rule"], f["path"]) for f in found["failed"]] == [(rule, path)]
    assert all(f["detail"] for f in found["failed"])
    assert found["passed"] == [name for name in hygiene.RULES if name != rule]


def test_every_rule_is_broken_somewhere() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(hygiene.RULES)


@pytest.mark.parametrize(
    "allows",
    [
        adds("root/.ssh/id_ed25519.pub"),
        adds("var/log/emptied.log", ""),
        appends("etc/hosts", "# 127.0.1.1 ip-10-0-0-7\n127.0.1.1 localhost\n"),
        appends("etc/fstab", "# /swapfile none swap sw 0 0\n"),
        links("var/log/README", "/usr/share/doc/systemd/README.logs"),
        adds("home/lost+found/x"),
        lambda root: (root / "var/lib/dbus/machine-id").unlink(),
    ],
)
def test_what_is_allowed_passes(disk: Path, allows: Breaks) -> None:
    allows(disk)
    assert inspect(disk)["failed"] == []


def test_links_are_never_followed_to_this_machines_own_files(disk: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write(outside / "ssh_host_rsa_key")
    write(outside / "x.log")
    for name in ("etc/ssh", "var/log"):
        (disk / name).rename(disk / f"{name}-away")
        (disk / name).symlink_to(outside)
    (disk / "etc/hostname").unlink()
    (disk / "etc/hostname").symlink_to(outside / "x.log")
    assert inspect(disk)["failed"] == []


def test_a_rule_that_cannot_be_followed_has_failed(disk: Path) -> None:
    write(disk / "etc/passwd", "root:x:zero:0::/root:/bin/sh\n")
    (problem,) = inspect(disk)["failed"]
    assert problem["rule"] == "no users but the system's"
    assert "can't be looked at" in problem["detail"]


def test_the_program_prints_what_it_found(disk: Path) -> None:
    done = proc.run([sys.executable, "-I", "-S", PROGRAM, disk])
    assert json.loads(done.text) == {"passed": list(hygiene.RULES), "failed": []}


def test_an_empty_folder_is_no_disk(tmp_path: Path) -> None:
    """A mount that went wrong must not pass for a clean image."""
    assert inspect(tmp_path)["failed"] != []
