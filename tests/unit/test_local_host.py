"""What hinders machines on a host, read from its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from amibuild.local import host
from amibuild.local.host import User

ME = User(1000, "me")


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def grant(root: Path, *lines: str) -> None:
    for name in ("etc/subuid", "etc/subgid"):
        write(root, name, "".join(f"{line}\n" for line in lines))


def test_root_needs_no_subordinate_ids(tmp_path: Path) -> None:
    assert host.namespace_faults(User(0, "root"), tmp_path) == ()


@pytest.mark.parametrize("owner", ["me", "1000"])
def test_a_range_may_be_granted_by_name_or_by_number(tmp_path: Path, owner: str) -> None:
    grant(tmp_path, "other:100000:65536", f"{owner}:165536:65536")
    assert host.namespace_faults(ME, tmp_path) == ()


@pytest.mark.parametrize("lines", [(), ("other:100000:65536",), ("me:100000:1000",), ("me:x",)])
def test_a_user_without_a_range_gets_the_command_for_one(
    tmp_path: Path, lines: tuple[str, ...]
) -> None:
    grant(tmp_path, *lines)
    (fault,) = host.namespace_faults(ME, tmp_path)
    assert fault.reason == "me has no 65536 subordinate ids in /etc/subuid and /etc/subgid"
    assert fault.mend is not None
    assert fault.mend.startswith("usermod --add-subuids ")


def test_a_new_range_starts_after_all_others_and_only_where_it_is_missing(tmp_path: Path) -> None:
    grant(tmp_path, "other:100000:65536", "me:165536:65536")
    write(tmp_path, "etc/subgid", "other:100000:65536\n")
    (fault,) = host.namespace_faults(ME, tmp_path)
    assert fault.mend == "usermod --add-subgids 231072-296607 me"


def test_a_user_that_the_host_does_not_know_can_have_none(tmp_path: Path) -> None:
    (fault,) = host.namespace_faults(User(12345, None), tmp_path)
    assert "12345" in fault.reason
    assert fault.mend is None


@pytest.mark.parametrize(
    ("name", "value", "mend"),
    [
        ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            "kernel/unprivileged_userns_clone",
            "0",
            "sysctl -w kernel.unprivileged_userns_clone=1",
        ),
    ],
)
def test_switched_off_user_namespaces_are_told_with_their_switch(
    tmp_path: Path, name: str, value: str, mend: str
) -> None:
    grant(tmp_path, "me:100000:65536")
    write(tmp_path, f"proc/sys/{name}", f"{value}\n")
    (fault,) = host.namespace_faults(ME, tmp_path)
    assert fault.mend == mend
    write(tmp_path, f"proc/sys/{name}", mend.partition("=")[2])
    assert host.namespace_faults(ME, tmp_path) == ()


def test_a_missing_tun_device_is_told(tmp_path: Path) -> None:
    (fault,) = host.tun_faults(tmp_path)
    assert fault.mend == "modprobe tun"
    write(tmp_path, "dev/net/tun", "")
    assert host.tun_faults(tmp_path) == ()


def test_a_host_without_kvm_is_told_why_without_a_command(tmp_path: Path) -> None:
    (fault,) = host.kvm_faults(ME, tmp_path)
    assert fault.mend is None
    write(tmp_path, "dev/kvm", "")
    assert host.kvm_faults(ME, tmp_path) == ()


@pytest.mark.parametrize(("kib", "enough"), [(8_000_000, True), (900_000, False)])
def test_memory_is_what_is_available(tmp_path: Path, kib: int, enough: bool) -> None:
    write(tmp_path, "proc/meminfo", f"MemTotal: 16000000 kB\nMemAvailable: {kib} kB\n")
    assert (host.memory_faults(tmp_path) == ()) is enough


def test_a_system_that_does_not_tell_its_memory_is_not_blamed(tmp_path: Path) -> None:
    assert host.memory_faults(tmp_path) == ()


def test_the_disk_of_a_folder_that_is_not_there_yet_is_its_parents(tmp_path: Path) -> None:
    assert host.disk_free_gib(tmp_path / "a/b") == pytest.approx(
        host.disk_free_gib(tmp_path), rel=0.1
    )


@pytest.mark.parametrize(
    ("text", "debian"), [("ID=debian\n", True), ('ID="ubuntu"\nID_LIKE=debian\n', False)]
)
def test_debian_itself_is_told_from_what_comes_of_it(
    tmp_path: Path, text: str, debian: bool
) -> None:
    write(tmp_path, "etc/os-release", text)
    assert host.is_debian(tmp_path) is debian
