"""What holds for every service, on a fresh boot of the finished image.

`facts` come from its service.toml: see `service_facts` in library/compile.py.
"""

import json
import re
import socket
from collections.abc import Callable
from typing import Any

from testinfra.host import Host

Facts = dict[str, Any]
Record = Callable[[str, object], None]

# The unit is active once its program was started, which may then take a while to open its port.
UNTIL_HEARD = 'for _ in $(seq 120); do [ -z "$(ss -Hln "$@")" ] || exit 0; sleep 0.5; done; exit 1'
# systemctl waits for the server's end; its socket ends after it, and takes the FIFO along.
UNTIL_GONE = 'for _ in $(seq 20); do [ -e "$1" ] || exit 0; sleep 0.5; done; exit 1'
UNTIL_RESTARTED = (
    'for _ in $(seq 120); do pid=$(systemctl show --property=MainPID --value "$1");'
    ' [ "$pid" = 0 ] || [ "$pid" = "$2" ] || exit 0; sleep 0.5; done; exit 1'
)


def test_its_unit_is_enabled_and_active(host: Host, facts: Facts) -> None:
    shown = "systemctl show --property=UnitFileState,ActiveState %s"
    seen = host.check_output(shown, facts["unit"]).split()
    assert sorted(seen) == ["ActiveState=active", "UnitFileState=enabled"]


def wait_until_heard(host: Host, facts: Facts) -> None:
    for port in facts["ports"]:
        port_filter = f"sport = :{port['port']}"
        heard = host.run("sh -c %s sh --%s %s", UNTIL_HEARD, port["protocol"], port_filter)
        assert heard.rc == 0, f"nothing on {port['name']}: " + host.run("ss -Htuln").stdout


def shown(host: Host, unit: str, *names: str) -> dict[str, str]:
    """Properties of a unit."""
    lines = host.check_output("systemctl show --property=%s %s", ",".join(names), unit)
    return dict(line.split("=", 1) for line in lines.splitlines())


def test_it_listens_on_its_ports(host: Host, facts: Facts, record_property: Record) -> None:
    """Whether it also answers is for the service's own checks: each protocol is another."""
    wait_until_heard(host, facts)
    for port in facts["ports"]:
        if port["protocol"] == "tcp":
            socket.create_connection(("localhost", port["port"]), timeout=60).close()
        seen = "connects" if port["protocol"] == "tcp" else "listens"
        record_property(f"port.{port['name']}", seen)


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


def test_its_sandbox_is_tight(host: Host, facts: Facts, record_property: Record) -> None:
    report = host.check_output("systemd-analyze security --no-pager %s", facts["unit"])
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", report)
    assert found, report
    record_property("exposure", float(found[1]))
    assert float(found[1]) <= facts["exposure_limit"]


def test_the_units_it_replaces_cannot_start(host: Host, facts: Facts) -> None:
    # Where a package's unit has the very name of ours, ours has taken its place.
    for unit in set(facts["replaces_units"]) - {facts["unit"]}:
        assert host.run("systemctl is-enabled %s", unit).stdout.strip() == "masked"


def resident_kib(host: Host, user: str) -> int:
    """Of all its processes. The unit's own MemoryCurrent is not counted in every container."""
    status = "grep -h VmRSS $(find /proc -maxdepth 1 -user %s -name '[0-9]*' -printf '%%p/status ')"
    return sum(int(line.split()[1]) for line in host.run(status, user).stdout.splitlines())


def test_it_has_its_limits(host: Host, facts: Facts, record_property: Record) -> None:
    limits = shown(host, facts["unit"], "MemoryMax", "TasksMax", "CPUQuotaPerSecUSec")
    record_property("memory_used_mib", round(resident_kib(host, facts["user"]) / 1024, 1))
    cpu = facts["cpu_percent"]
    assert limits["MemoryMax"] == str(facts["memory_mib"] * 1024 * 1024)
    assert limits["TasksMax"] == str(facts["tasks_max"])
    assert (limits["CPUQuotaPerSecUSec"] == "infinity") is (cpu is None)


def test_no_other_user_can_read_its_state(host: Host, facts: Facts) -> None:
    users = host.check_output("getent passwd").splitlines()
    names = [line.partition(":")[0] for line in users]
    others = [n for n in names if n == "nobody" or (n.startswith("svc-") and n != facts["user"])]
    for other in others:
        for folder in (facts["state_directory"], facts["config_directory"]):
            assert host.run("runuser -u %s -- ls %s", other, folder).rc != 0, f"{other}: {folder}"


def test_its_facts_are_on_the_machine(host: Host, facts: Facts) -> None:
    path = f"/etc/amibuild/services/{facts['name']}.json"
    assert host.check_output("stat -c '%%U %%a' %s", path) == "root 644"
    assert json.loads(host.check_output("cat %s", path)) == facts


def test_the_firewall_opens_its_public_ports_and_no_others(host: Host, facts: Facts) -> None:
    rules = host.check_output("cat /etc/nftables.d/%s.nft", facts["user"])
    for protocol in ("tcp", "udp"):
        ours = {p["port"]: p["public"] for p in facts["ports"] if p["protocol"] == protocol}
        found = re.findall(f"{protocol}_open {{ ([0-9, ]+) }}", rules)
        opened = {int(number) for line in found for number in line.split(",")}
        assert opened == {number for number, public in ours.items() if public}
        # The table is there where the recipe has the step `hardening`.
        listed = host.run("nft --json list set inet amibuild %s_open", protocol)
        if listed.rc == 0:
            (set_,) = [o["set"] for o in json.loads(listed.stdout)["nftables"] if "set" in o]
            assert opened <= set(set_.get("elem", []))
            assert not {n for n, public in ours.items() if not public} & set(set_.get("elem", []))


def test_the_firewall_knows_its_user_by_number(host: Host, facts: Facts) -> None:
    """A name that no user has any more would keep the whole firewall from being loaded."""
    rules = host.check_output("cat /etc/nftables.d/%s.nft", facts["user"])
    uid = host.check_output("id --user %s", facts["user"])
    expected = set() if facts["uses_role"] else {uid}
    assert set(re.findall(r"skuid (\S+)", rules)) == expected


def test_its_journal_is_what_the_cloudwatch_agent_is_told_to_ship(host: Host, facts: Facts) -> None:
    path = f"/etc/amibuild/cloudwatch.d/{facts['user']}.json"
    part = json.loads(host.check_output("cat %s", path))
    collected = part["logs"]["logs_collected"]
    assert [e["units"] for e in collected["journald"]["collect_list"]] == [[facts["unit"]]]
    files = collected.get("files", {"collect_list": []})["collect_list"]
    assert [e["file_path"] for e in files] == facts["log_files"]
    for entry in (*collected["journald"]["collect_list"], *files):
        assert (entry["log_group_name"], entry["retention_in_days"]) == (facts["log_group"], 365)


def test_logrotate_takes_its_entry(host: Host, facts: Facts) -> None:
    entry = host.file(f"/etc/logrotate.d/{facts['user']}")
    assert entry.exists is bool(facts["log_files"])
    if entry.exists:
        said = host.run("logrotate --debug %s", entry.path)
        assert said.rc == 0 and "error" not in said.stderr, said.stderr


def test_its_secrets_are_for_root_and_itself_alone(host: Host, facts: Facts) -> None:
    if not facts["secrets"]:
        return
    folder = f"/run/amibuild/secrets/{facts['name']}"
    names = " ".join(sorted(secret["name"] for secret in facts["secrets"]))
    assert host.check_output("stat -c '%%U %%a' %s", folder) == "root 700"
    assert host.check_output("ls %s", folder).split() == names.split()
    assert host.run("runuser -u %s -- ls %s", facts["user"], folder).rc != 0


# These two stop it, so they come last; what another file asks of it must find it at work again.


def test_it_comes_back_after_a_crash(host: Host, facts: Facts) -> None:
    wait_until_heard(host, facts)
    pid = shown(host, facts["unit"], "MainPID")["MainPID"]
    host.check_output("kill -KILL %s", pid)
    came = host.run("sh -c %s sh %s %s", UNTIL_RESTARTED, facts["unit"], pid)
    assert came.rc == 0, host.run("systemctl status %s", facts["unit"]).stdout
    wait_until_heard(host, facts)


def test_it_stops_gracefully_and_keeps_its_state(
    host: Host, facts: Facts, record_property: Record
) -> None:
    wait_until_heard(host, facts)
    listed = "find %s -type f -not -name '*-journal' -not -name '*-wal' -not -name '*-shm'"
    before = set(host.check_output(listed, facts["state_directory"]).splitlines())
    host.check_output("systemctl stop %s", facts["unit"])
    since, until = "ActiveExitTimestampMonotonic", "InactiveEnterTimestampMonotonic"
    ended = shown(host, facts["unit"], "ActiveState", "Result", since, until)
    # The result is `timeout` when it had to be killed, and `signal` when it died of it.
    assert (ended["ActiveState"], ended["Result"]) == ("inactive", "success"), ended
    took_s = (int(ended[until]) - int(ended[since])) / 1e6
    record_property("stop_s", round(took_s, 2))
    assert took_s < facts["stop_timeout_s"]
    if facts["stdin"]:
        assert host.run("sh -c %s sh %s", UNTIL_GONE, facts["stdin"]).rc == 0
    host.check_output("systemctl start %s", facts["unit"])
    wait_until_heard(host, facts)
    after = set(host.check_output(listed, facts["state_directory"]).splitlines())
    assert before <= after
