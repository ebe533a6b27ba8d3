"""Services are confined, and what is confined can't do what its profile does not let it."""

import json
from pathlib import Path

from testinfra.host import Host

SECURITY = Path("/sys/kernel/security/apparmor")
CONFINED = "aa-exec --profile amibuild-service -- "
# Each as root, whom no mode of a file would hold back; and what undoes it.
REFUSED = {
    "cat /etc/shadow": "true",
    "mount --bind /mnt /mnt": "umount /mnt",
    "sh -c 'echo 0 >/proc/sys/kernel/sysrq'": "true",
    "python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)'": "true",
    "chown daemon /run/amicheck": "chown root /run/amicheck",
}


def test_profiles_are_enforced(host: Host, own_kernel: None) -> None:
    assert Path("/sys/module/apparmor/parameters/enabled").read_text().strip() == "Y"
    loaded = SECURITY.joinpath("profiles").read_text().splitlines()
    assert {"amibuild-service (enforce)", "lsb_release (enforce)"} <= set(loaded)


def test_each_service_is_confined(host: Host, own_kernel: None) -> None:
    for path in Path("/etc/amibuild/services").glob("*.json"):
        unit = json.loads(path.read_text())["unit"]
        pid = host.check_output("systemctl show --property=MainPID --value %s", unit)
        confined = Path(f"/proc/{pid}/attr/current").read_text().strip("\0\n")
        assert confined == "amibuild-service (enforce)", unit


def test_even_root_is_kept_from_what_the_profile_does_not_let_it(
    host: Host, own_kernel: None
) -> None:
    host.check_output("touch /run/amicheck")
    assert host.run(CONFINED + "cat /etc/hostname").rc == 0
    for command, undo in REFUSED.items():
        assert host.run(command).rc == 0, "this machine does not know it, so nothing is shown"
        host.check_output(undo)
        assert host.run(CONFINED + command).rc != 0, command
    host.run("rm /run/amicheck")


def test_no_profile_waits_for_a_program_that_is_not_there(host: Host) -> None:
    """Each is compiled at a first boot, which takes an emulated machine a good while."""
    bundled = map(Path, host.check_output("dpkg-query --listfiles apparmor").splitlines())
    there = {p.name for p in bundled if p.parent == Path("/etc/apparmor.d") and p.is_file()}
    disabled = set(host.check_output("ls /etc/apparmor.d/disable").split())
    assert len(there) > 50
    assert there - disabled == {"lsb_release"}
