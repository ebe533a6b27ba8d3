"""What is recorded: a change is made, and the record tells of it."""

from testinfra.host import Host

# The record is written by another process, a moment later.
CHANGE = """
touch /etc/sudoers.d
for _ in $(seq 50); do
    ausearch --input-logs --key privileges --start recent --raw | grep -q 'comm="touch"' && exit 0
    sleep 0.2
done
exit 1
"""


def test_auditd_is_enabled(host: Host) -> None:
    assert host.check_output("systemctl is-enabled auditd audit-rules").split() == ["enabled"] * 2


def test_a_change_of_rights_is_on_record(host: Host, own_kernel: None) -> None:
    assert host.check_output("systemctl is-active auditd") == "active"
    listed = host.check_output("auditctl -l").splitlines()
    rules = host.check_output("cat /etc/audit/rules.d/50-amibuild.rules").splitlines()
    assert len(listed) == len([line for line in rules if line.startswith("-")])
    told = host.run("bash -c %s", CHANGE)
    assert told.rc == 0, told.stderr
