"""How shut in each service is that this machine starts, Debian's too, and that they still work."""

import re
from collections.abc import Callable
from typing import Any

from testinfra.host import Host

Facts = dict[str, Any]

# systemd calls up to here "medium", 0 is shut in and 10 open.
WORST = 5.0
# Units that are there while these checks are.
OUR_COMMANDS = "amibuild-"
# What stays open beyond that, and why. A pattern is of a whole name.
OPEN = {
    r"amazon-cloudwatch-agent": "reads whatever log a recipe names; not tried without its package",
    r"amazon-ssm-agent|qemu-guest-agent": "runs as root what it is told: the way in",
    r"cloud-(config|final|init.*)": "runs as root what the instance's user data say",
    r"(console-|serial-)?getty(@.*)?|ssh|user@.*": "a login: all that is done there runs in it",
    r"apt-daily(-upgrade)?|unattended-upgrades": "replaces any file, as root",
    r"sshd-keygen": "makes the host's keys, for an instant of its first boot",
    r"systemd-tmpfiles-.*": "makes and removes files wherever it is told to",
    r"systemd-udevd": "makes devices and starts what rules name; systemd shuts in the rest",
    r"systemd-(ask-password|bsod|initctl).*": "talks to consoles and to PID 1, and is not run",
    r"systemd-(remount-fs|pstore|user-sessions|update-utmp.*)": "for an instant of the boot",
    r"systemd-network(-generator|d-wait-online)": "for an instant of the boot",
}
STARTED = """
set -euo pipefail
list() { systemctl "$@" --no-legend --no-pager --plain | awk '{print $1}'; }
{
    list list-unit-files --type=service --state=enabled,enabled-runtime | grep -v '@\\.'
    list list-units --type=service --state=running
    list list-units --type=timer,socket,path --state=active |
        xargs systemctl show --property=Triggers --value | tr ' ' '\\n'
} | grep '\\.service$' | sort --unique >/run/amicheck-units
xargs systemctl show --property=Id,LoadState </run/amicheck-units | awk -F = '
    /^Id/ {id = $2} /^LoadState=loaded/ {loaded[id]} END {for (id in loaded) print id}' |
    xargs systemd-analyze security --no-pager 2>/dev/null
rm /run/amicheck-units
"""
OVERALL = re.compile(r"exposure level for (\S+)\.service: (\d+\.\d) [A-Z]+")


def reason(name: str) -> str | None:
    return next((why for pattern, why in OPEN.items() if re.fullmatch(pattern, name)), None)


def test_no_service_is_more_open_than_it_has_to_be(
    host: Host, facts: Facts, record_property: Callable[[str, object], None]
) -> None:
    listed = OVERALL.findall(host.check_output("bash -c %s", STARTED))
    found = {name: figure for name, figure in listed if not name.startswith(OUR_COMMANDS)}
    assert {"dbus", "nftables", "systemd-networkd"} <= set(found)
    record_property(
        "exposure", " ".join(f"{name}={figure}" for name, figure in sorted(found.items()))
    )
    allowed = {name.removesuffix(".service") for name in facts["parameters"]["open_units"]}
    too_open = [n for n, figure in found.items() if float(figure) > WORST and not reason(n)]
    told = "shut it in by a drop-in, or name it in params.hardening.open_units"
    assert " ".join(sorted({*too_open} - allowed)) == "", told


def test_those_that_were_shut_in_still_work(host: Host) -> None:
    """At the boot, or when they are called; auditd and fail2ban have checks of their own."""
    assert "policy drop" in host.check_output("nft list table inet amibuild")
    # A service that is not running is started by the bus, and answers over it.
    host.check_output("busctl call org.freedesktop.hostname1 / org.freedesktop.DBus.Peer Ping")
    # What timers start later, where it is there, and the boot. A container skips fstrim.
    for unit in ("logrotate", "fstrim", "dpkg-db-backup", "nftables", "dbus"):
        show = "systemctl show --value --property=%s %s"
        if host.check_output(show, "LoadState", unit) == "loaded":
            host.check_output("systemctl start %s", unit)
            assert host.check_output(show, "Result", unit) == "success", unit
