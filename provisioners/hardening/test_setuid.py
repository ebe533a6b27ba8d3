"""The programs that still become somebody else, on the whole disk."""

from typing import Any

from testinfra.host import Host

# unix_chkpwd lets a locked screen ask for its own user's password; the other one starts services
# for the bus, and only the bus's user may run it.
WANTED = {
    "/usr/bin/sudo",
    "/usr/lib/dbus-1.0/dbus-daemon-launch-helper",
    "/usr/sbin/unix_chkpwd",
}


def test_there_are_no_others(host: Host, facts: dict[str, Any]) -> None:
    found = set(host.check_output("find / -xdev -type f -perm /6000").splitlines())
    told = "take the bits off, or name it in params.hardening.setuid_programs"
    assert sorted(found - WANTED - set(facts["parameters"]["setuid_programs"])) == [], told
    assert "/usr/bin/sudo" in found
