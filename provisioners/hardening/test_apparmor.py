"""Services are confined, and what is confined can't do what its profile does not let it."""

import json
from pathlib import Path

from testinfra.host import Host

SECURITY = Path("/sys/kernel/security/apparmor")
CONFINED = "aa-exec --profile amibuild-service -- "
# Each as root, whom no mode of a file would hold back.
REFUSED = (
    "cat /etc/shadow",
    "mount --bind /mnt /mnt",
    "sh -c 'echo 1 >/proc/sys/kernel/sysrq'",
    "ping -c 1 127.0.0.1",
    "chown daemon /run/amicheck",
)


def test_profiles_are_enforced(host: Host, own_kernel: None) -> None:
    assert Path("/sys/module/apparmor/parameters/enabled").read_text().strip() == "Y"
    loaded = SECURITY.joinpath("profiles").read_text().splitlines()
    assert sorted(loaded) == ["amibuild-service (enforce)", "lsb_release (enforce)"]


def test_each_service_is_confined(host: Host, own_kernel: None) -> None:
    for path in Path("/etc/amibuild/services").glob("*.json"):
        unit = json.loads(path.read_text())["unit"]
        pid = host.check_output("systemctl show --property=MainPID --value %s", unit)
        confined = Path(f"/proc/{pid}/attr/current").read_text().strip("\0\n")
        assert confined == "amibuild-service (enforce)", unit


def test_even_root_is_kept_from_what_the_profile_does_not_let_it(
    host: Host, own_kernel: None
) -> None:
    assert host.run("touch /run/amicheck; cat /etc/shadow").rc == 0
    assert host.run(CONFINED + "cat /etc/hostname").rc == 0
    assert [command for command in REFUSED if host.run(CONFINED + command).rc == 0] == []
    host.run("rm /run/amicheck")


def test_no_profile_waits_for_a_program_that_is_not_there(host: Host) -> None:
    """Each is compiled at a first boot, which takes an emulated machine a good while."""
    listed = "find /etc/apparmor.d -maxdepth 1 -type f -printf '%f\\n'"
    disabled = set(host.check_output("ls /etc/apparmor.d/disable").split())
    assert set(host.check_output(listed).split()) - disabled == {"amibuild-service", "lsb_release"}
