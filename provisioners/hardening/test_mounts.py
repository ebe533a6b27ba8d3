"""Where anybody may write, and what a service sees of others."""

import json
from pathlib import Path

from testinfra.host import Host

CLOSED = {"nosuid", "nodev", "noexec"}


def options(mounts: str, at: str) -> set[str]:
    """Of what is mounted there last, and so on top."""
    found = [fields for fields in map(str.split, mounts.splitlines()) if fields[4] == at]
    return {*found[-1][5].split(","), *found[-1][-1].split(",")} if found else set()


def test_what_anybody_may_write_to_holds_no_programs(host: Host, own_kernel: None) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    assert options(mounts, "/tmp") >= CLOSED
    assert options(mounts, "/dev/shm") >= CLOSED
    assert options(mounts, "/dev") >= {"nosuid", "noexec"}
    copied = host.run("cp /usr/bin/true /tmp/amicheck && /tmp/amicheck; echo $?; rm /tmp/amicheck")
    assert copied.stdout.strip() == "126"


def test_a_service_sees_no_processes_of_others(host: Host) -> None:
    for path in Path("/etc/amibuild/services").glob("*.json"):
        unit = json.loads(path.read_text())["unit"]
        pid = host.check_output("systemctl show --property=MainPID --value %s", unit)
        mounts = Path(f"/proc/{pid}/mountinfo").read_text()
        assert options(mounts, "/proc") & {"hidepid=invisible", "hidepid=2"}, unit


def test_packages_ask_their_questions_from_where_programs_run(host: Host) -> None:
    assert "/var/tmp" in host.check_output("apt-config dump APT::ExtractTemplates::TempDir")
