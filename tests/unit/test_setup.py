"""`.ci/setup` on hosts that lack something, with stand-ins for the programs that it calls."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from amibuild import proc

SETUP = Path(__file__).parents[2] / ".ci" / "setup"
ASKED = "dpkg-query --show --showformat"


@dataclass(frozen=True)
class Host:
    """A checkout whose .venv is up to date, and a folder of stand-ins in front of PATH."""

    folder: Path

    def answers(self, program: str, script: str) -> None:
        path = self.folder / "bin" / program
        path.write_text(f'#!/bin/sh\necho "{program} $*" >>"$CALLS"\n{script}\n')
        path.chmod(0o755)

    def setup(self) -> proc.Finished:
        path = f"{self.folder}/bin:/usr/bin:/bin"
        env = {"PATH": path, "CALLS": str(self.folder / "calls")}
        return proc.run([self.folder / ".ci" / "setup"], check=False, env=env)

    @property
    def calls(self) -> list[str]:
        """Without the questions about what is installed."""
        lines = (self.folder / "calls").read_text().splitlines()
        return [line for line in lines if not line.startswith(ASKED)]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    for folder in ("bin", ".ci", ".venv"):
        (tmp_path / folder).mkdir()
    shutil.copy(SETUP, tmp_path / ".ci" / "setup")
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / ".venv" / ".setup").write_bytes(proc.run(["cksum"], stdin=b"").stdout)
    host = Host(tmp_path)
    host.answers("id", "echo 0")
    host.answers("apt-get", "exit 0")
    host.answers("sudo", 'shift; exec "$@"')
    all_but_two = "case $3 in qemu-system-x86|mtools) exit 1;; *) printf installed;; esac"
    host.answers("dpkg-query", all_but_two)
    return host


def installs(*packages: str) -> str:
    return f"apt-get install -q -y --no-install-recommends {' '.join(packages)}"


def test_root_installs_what_is_missing_and_nothing_else(host: Host) -> None:
    assert host.setup().exit_code == 0
    assert host.calls == ["id -u", installs("qemu-system-x86", "mtools")]


def test_package_lists_are_fetched_only_when_the_installation_fails(host: Host) -> None:
    host.answers("apt-get", 'case $1 in update) touch "$CALLS.up";; *) [ -e "$CALLS.up" ];; esac')
    assert host.setup().exit_code == 0
    install = installs("qemu-system-x86", "mtools")
    assert host.calls == ["id -u", install, "apt-get update -q", install]


def test_nothing_is_called_when_nothing_is_missing(host: Host) -> None:
    host.answers("dpkg-query", "printf installed")
    assert host.setup().exit_code == 0
    assert host.calls == []


def test_a_user_with_sudo_installs_through_it(host: Host) -> None:
    host.answers("id", "echo 1000")
    assert host.setup().exit_code == 0
    assert installs("qemu-system-x86", "mtools") in host.calls
    assert any(call.startswith("sudo -n env") for call in host.calls)


def test_a_user_without_sudo_is_told_the_one_command(host: Host) -> None:
    host.answers("id", "echo 1000")
    host.answers("sudo", "exit 1")
    done = host.setup()
    assert done.exit_code == 1
    told = "sudo apt-get install --no-install-recommends qemu-system-x86 mtools"
    assert told in done.stderr.decode()
    assert not any(call.startswith("apt-get") for call in host.calls)


def test_an_installation_that_fails_ends_the_setup(host: Host) -> None:
    host.answers("apt-get", "exit 100")
    assert host.setup().exit_code == 100


def test_each_client_of_the_tests_is_installed_by_itself_and_tried_once(host: Host) -> None:
    """A release of Debian without one of them still gets the others, and a .venv."""
    host.answers("dpkg-query", "case $3 in packer|awscli) exit 1;; *) printf installed;; esac")
    host.answers("apt-get", 'case "$*" in *packer) exit 100;; esac')
    first = host.setup()
    assert first.exit_code == 0
    assert "going on without packer: its tests are not run" in first.stderr.decode()
    assert host.calls == [
        "id -u",
        installs("awscli"),
        "id -u",
        installs("packer"),
        "apt-get update -q",
        installs("packer"),
    ]
    calls = len(host.calls)
    assert host.setup().exit_code == 0
    assert len(host.calls) == calls


def test_a_user_without_rights_goes_on_without_the_clients(host: Host) -> None:
    host.answers("id", "echo 1000")
    host.answers("sudo", "exit 1")
    host.answers("dpkg-query", "case $3 in packer) exit 1;; *) printf installed;; esac")
    assert host.setup().exit_code == 0
    assert not any(call.startswith("apt-get") for call in host.calls)


def test_an_sshd_for_tests_is_unpacked_and_not_installed(host: Host) -> None:
    """Installed, it would make a user on this host and start a service."""
    host.answers(
        "dpkg-query", "case $3 in openssh-server|sudo) exit 1;; *) printf installed;; esac"
    )
    host.answers("apt-get", 'case "$*" in "download "*) touch "$3.deb";; esac')
    host.answers("dpkg-deb", "exit 0")
    host.answers("id", "echo 1000")
    assert host.setup().exit_code == 0
    downloads = [call for call in host.calls if call.startswith("apt-get")]
    assert downloads == ["apt-get download -q openssh-server", "apt-get download -q sudo"]
    assert [c for c in host.calls if c.startswith("dpkg-deb")] == [
        "dpkg-deb --extract ./openssh-server.deb .",
        "dpkg-deb --extract ./sudo.deb .",
    ]
    assert list((host.folder / ".venv/unpacked").iterdir()) == []
    calls = len(host.calls)
    assert host.setup().exit_code == 0
    assert len(host.calls) == calls


def test_without_an_sshd_the_setup_goes_on(host: Host) -> None:
    host.answers("dpkg-query", "case $3 in openssh-server) exit 1;; *) printf installed;; esac")
    host.answers("apt-get", "exit 100")
    done = host.setup()
    assert done.exit_code == 0
    assert "going on without openssh-server: its tests are not run" in done.stderr.decode()
