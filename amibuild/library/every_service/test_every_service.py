"""What holds for every service, on a fresh boot of the finished image.

`facts` come from its service.toml: see `service_facts` in library/compile.py.
"""

import re
from collections.abc import Callable
from typing import Any

from testinfra.host import Host

Facts = dict[str, Any]

# The unit is active once its program was started, which may then take a while to open its port.
UNTIL_HEARD = 'for _ in $(seq 120); do [ -z "$(ss -Hln "$@")" ] || exit 0; sleep 0.5; done; exit 1'


def test_its_unit_is_enabled_and_active(host: Host, facts: Facts) -> None:
    shown = "systemctl show --property=UnitFileState,ActiveState %s"
    seen = host.check_output(shown, facts["unit"]).split()
    assert sorted(seen) == ["ActiveState=active", "UnitFileState=enabled"]


def test_it_listens_on_its_ports(host: Host, facts: Facts) -> None:
    for port in facts["ports"]:
        port_filter = f"sport = :{port['port']}"
        heard = host.run("sh -c %s sh --%s %s", UNTIL_HEARD, port["protocol"], port_filter)
        assert heard.rc == 0, f"nothing on {port['name']}: " + host.run("ss -Htuln").stdout


def test_it_runs_as_its_own_user(host: Host, facts: Facts) -> None:
    _, _, uid, *_, shell = host.check_output("getent passwd %s", facts["user"]).split(":")
    assert 0 < int(uid) < 1000
    assert shell == "/usr/sbin/nologin"
    pid = host.check_output("systemctl show --property=MainPID --value %s", facts["unit"])
    assert host.check_output("stat -c %%U /proc/%s", pid) == facts["user"]


def test_its_directories_are_its_own(host: Host, facts: Facts) -> None:
    folders = facts["state_directory"], facts["config_directory"]
    seen = host.check_output("stat -c '%%U %%G %%a %%F' %s %s", *folders)
    assert seen.splitlines() == [
        f"{facts['user']} {facts['group']} 750 directory",
        f"root {facts['group']} 750 directory",
    ]


def test_its_sandbox_is_tight(
    host: Host, facts: Facts, record_property: Callable[[str, object], None]
) -> None:
    report = host.check_output("systemd-analyze security --no-pager %s", facts["unit"])
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", report)
    assert found, report
    record_property("exposure", float(found[1]))
    assert float(found[1]) <= facts["exposure_limit"]


def test_the_units_it_replaces_cannot_start(host: Host, facts: Facts) -> None:
    for unit in facts["replaces_units"]:
        assert host.run("systemctl is-enabled %s", unit).stdout.strip() == "masked"
