"""The base system as the finished image boots it."""

import json
from typing import Any

from testinfra.host import Host

Facts = dict[str, Any]

OLD_ORIGINS = "Unattended-Upgrade::Allowed-Origins"


def test_the_boot_ended_with_no_unit_failed(host: Host) -> None:
    failed = host.check_output("systemctl list-units --failed --plain --no-legend")
    assert failed == ""


def test_base_packages_are_installed(host: Host, facts: Facts) -> None:
    # One question for all of them: under emulation each costs a tenth of a second.
    wanted = facts["parameters"]["packages"]
    states = "dpkg-query --show --showformat='${Package} ${db:Status-Status}\\n' "
    seen = host.run(states + " ".join(["%s"] * len(wanted)), *wanted).stdout.splitlines()
    assert {f"{name} installed" for name in wanted} <= set(seen)


def test_no_package_is_half_installed(host: Host) -> None:
    assert host.check_output("dpkg --audit") == ""


def test_time_is_synchronised_at_boot(host: Host, facts: Facts) -> None:
    assert host.check_output("systemctl is-enabled systemd-timesyncd") == "enabled"
    shown = host.check_output("systemd-analyze cat-config systemd/timesyncd.conf")
    assert f"NTP={' '.join(facts['parameters']['time_servers'])}" in shown.splitlines()


def test_time_zone_and_locale_are_the_recipes(host: Host, facts: Facts) -> None:
    zone = f"/usr/share/zoneinfo/{facts['parameters']['timezone']}"
    assert host.run("test /etc/localtime -ef %s", zone).rc == 0
    locale = host.check_output("cat /etc/default/locale")
    assert f"LANG={facts['parameters']['locale']}" in locale.splitlines()


def test_unneeded_units_are_masked(host: Host, facts: Facts) -> None:
    for unit in facts["parameters"]["unneeded_units"]:
        assert host.run("systemctl is-enabled %s", unit).stdout.strip() == "masked"


def test_security_updates_and_no_others_come_by_themselves(host: Host) -> None:
    said: dict[str, list[str]] = {}
    for line in host.check_output("apt-config dump").splitlines():
        key, _, value = line.rstrip(";").partition(" ")
        said.setdefault(key.rstrip(":"), []).append(value.strip('"'))
    assert said["APT::Periodic::Unattended-Upgrade"] == ["1"]
    assert said["APT::Periodic::Update-Package-Lists"] == ["1"]
    origins = [*said["Unattended-Upgrade::Origins-Pattern"], *said.get(OLD_ORIGINS, [])]
    assert [one for one in origins if one] == [
        "origin=Debian,codename=${distro_codename}-security,label=Debian-Security"
    ]
    assert said["Unattended-Upgrade::Automatic-Reboot"] == ["false"]


def test_updates_are_looked_for_after_the_boot_and_each_day(host: Host) -> None:
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer"):
        shown = "systemctl show --property=UnitFileState,TimersMonotonic,TimersCalendar %s"
        seen = host.check_output(shown, timer)
        assert "UnitFileState=enabled" in seen
        assert "OnBootUSec=" in seen and "OnUnitActiveUSec=1d" in seen
        assert "OnCalendar=" not in seen


def test_cloud_init_looks_on_ec2_and_in_a_seed_alone(host: Host) -> None:
    folder = "/etc/cloud/cloud.cfg /etc/cloud/cloud.cfg.d/*.cfg"
    said = host.run(f"grep -hE '^datasource_list:' {folder}").stdout.splitlines()
    assert said[-1] == "datasource_list: [Ec2, NoCloud, None]"
    used = json.loads(host.check_output("cat /run/cloud-init/result.json"))["v1"]["datasource"]
    assert used.startswith(("DataSourceEc2", "DataSourceNoCloud", "DataSourceNone"))


def test_services_may_start_again(host: Host) -> None:
    assert not host.file("/usr/sbin/policy-rc.d").exists
