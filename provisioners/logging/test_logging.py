"""Logs on the finished image: the journal's limits, one rule for logrotate, CloudWatch's agent."""

import json
import re
from typing import Any

from testinfra.host import Host

Facts = dict[str, Any]

PATTERN = "rotating pattern: "
AGENT = "amazon-cloudwatch-agent.service"
# Three days of a log that a snippet of the old kind would keep for a year, compressed.
THREE_DAYS = """
set -eu
at=$(mktemp -d /var/tmp/rotated.XXXXXX)
trap 'rm -rf "$at" /etc/logrotate.d/amibuild-check' EXIT
mkdir "$at/conf"
cat >/etc/logrotate.d/amibuild-check <<CONF
$at/log {
    weekly
    rotate 52
    compress
    size 9M
    postrotate
        rotate=$at/ran
        echo once >>\\$rotate
    endscript
}
CONF
chmod 0644 /etc/logrotate.d/amibuild-check
/usr/lib/amibuild/one-day-logrotate "$at/conf"
{ head -n 3 "$at/conf/logrotate.conf"; cat "$at/conf/logrotate.d/amibuild-check"; } >"$at/conf/ours"
for day in 1 2 3; do
    echo "day $day" >>"$at/log"
    logrotate --force --state "$at/conf/state" "$at/conf/ours"
done
cd "$at"
rm -r conf
grep -H . *
"""


def test_the_journal_is_kept_on_disk_within_its_limits(host: Host, facts: Facts) -> None:
    shown = host.check_output("systemd-analyze cat-config systemd/journald.conf").splitlines()
    said = dict(line.split("=", 1) for line in shown if re.match(r"[A-Z]\w+=", line))
    parameters = facts["parameters"]
    assert said["Storage"] == "persistent"
    assert said["SystemMaxUse"] == f"{parameters['journal_max_mib']}M"
    assert said["MaxRetentionSec"] == f"{parameters['journal_days']}day"
    assert said["RateLimitBurst"] == str(parameters["rate_burst"])
    assert host.run("test -f /var/log/journal/$(cat /etc/machine-id)/system.journal").rc == 0


def test_the_journal_has_this_boot_and_none_of_the_builders(host: Host) -> None:
    boots = json.loads(host.check_output("journalctl --list-boots --output=json"))
    assert len(boots) == 1


def test_one_rule_holds_for_all_that_rotates(host: Host) -> None:
    told = host.run(
        "sh -c %s",
        'at=$(mktemp -d) && /usr/lib/amibuild/one-day-logrotate "$at" && ls "$at/logrotate.d" >&2'
        ' && logrotate --debug "$at/logrotate.conf"; rm -rf "$at"',
    )
    rotated = [part.partition("considering log")[0] for part in told.stderr.split(PATTERN)[1:]]
    assert rotated, told.stderr
    # Its words for `daily` and `rotate 1`.
    assert [one for one in rotated if "after 1 days" not in one or "(1 rotations)" not in one] == []
    assert "error:" not in told.stderr


def test_yesterdays_log_is_kept_uncompressed_and_none_before_it(host: Host) -> None:
    told = host.run("sh -c %s", THREE_DAYS)
    assert told.rc == 0, told.stderr
    # That its script ran three times also tells that the script's own words stayed.
    assert told.stdout.splitlines() == ["log.1:day 3", *["ran:once"] * 3]


def test_logrotate_runs_each_day_by_that_rule(host: Host) -> None:
    assert host.check_output("systemctl is-enabled logrotate.timer") == "enabled"
    host.check_output("systemctl start logrotate.service")
    shown = "systemctl show --property=ExecStart,Result logrotate.service"
    seen = host.check_output(shown)
    assert "/run/amibuild-logrotate/logrotate.conf" in seen
    assert "Result=success" in seen.splitlines()


def test_the_services_parts_join_into_one_configuration(host: Host, facts: Facts) -> None:
    whole = json.loads(host.check_output("/usr/lib/amibuild/join-cloudwatch /dev/stdout"))
    collected = whole["logs"]["logs_collected"]
    entries = [entry for kind in collected.values() for entry in kind["collect_list"]]
    groups = {entry["log_group_name"]: entry["retention_in_days"] for entry in entries}
    parameters = facts["parameters"]
    wanted = {parameters["log_group"]: parameters["retention_days"]}
    services = host.run("find /etc/amibuild/services -name '*.json' -exec cat {} +").stdout
    for group in re.findall(r'^  "log_group": "(.+)",?$', services, re.MULTILINE):
        wanted[group] = 365
    assert groups == wanted
    units = [
        unit for entry in collected["journald"]["collect_list"] for unit in entry.get("units", [])
    ]
    assert len(units) == len(set(units)), "no unit is shipped twice"


def test_the_agent_finds_one_file_and_no_parts_of_its_own(host: Host) -> None:
    """It gives up when two of its parts have a `journald` section."""
    folder = "/opt/aws/amazon-cloudwatch-agent/etc/amazon-cloudwatch-agent.d"
    assert host.run("ls %s", folder).stdout == ""


def test_the_agent_is_there_if_the_recipe_names_its_package(host: Host, facts: Facts) -> None:
    shown = f"systemctl show --property=LoadState,UnitFileState {AGENT}"
    seen = dict(line.split("=") for line in host.check_output(shown).splitlines())
    if facts["parameters"]["agent"]:
        assert (seen["LoadState"], seen["UnitFileState"]) == ("loaded", "enabled")
        assert host.run("dpkg-query --show amazon-cloudwatch-agent").rc == 0
    else:
        # Absent, as the manifest declares, or part of the source image.
        assert seen["LoadState"] == "not-found" or seen["UnitFileState"] == "enabled"
