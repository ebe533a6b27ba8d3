"""A machine that boots from the sealed image has an identity of its own."""

from testinfra.host import Host


def test_it_made_its_own_machine_id(host: Host) -> None:
    assert len(host.check_output("cat /etc/machine-id")) == 32


def test_it_made_its_own_ssh_host_keys(host: Host) -> None:
    if not host.file("/usr/sbin/sshd").exists:
        return
    assert host.check_output("find /etc/ssh -name 'ssh_host_*_key'")


def test_nobody_but_the_default_user_can_log_in(host: Host) -> None:
    people = "awk -F: '$3 >= 1000 && $3 < 65534 { print $1 }' /etc/passwd"
    assert len(host.check_output(people).split()) <= 1
    with_password = "awk -F: '$2 ~ /^[^!*]/ { print $1 }' /etc/shadow"
    assert host.check_output(with_password) == ""
