"""No sshd at all; where the recipe asks for one, keys alone let people in."""

from typing import Any

from testinfra.host import Host

Facts = dict[str, Any]

WANTED = {
    "permitrootlogin": "no",
    "passwordauthentication": "no",
    "kbdinteractiveauthentication": "no",
    "permitemptypasswords": "no",
    "gssapiauthentication": "no",
    "disableforwarding": "yes",
    "banner": "/etc/issue.net",
    "maxauthtries": "3",
    "clientaliveinterval": "300",
}


def test_sshd_is_there_where_the_recipe_says_so_alone(host: Host, facts: Facts) -> None:
    there = host.run("command -v sshd || test -e /usr/sbin/sshd").rc == 0
    heard = host.check_output("ss -Hltn 'sport = :22'") != ""
    wanted = facts["parameters"]["ssh"]
    assert (there, heard) == (wanted, wanted)


def test_it_takes_keys_alone_or_left_nothing_behind(host: Host, facts: Facts) -> None:
    if facts["parameters"]["ssh"]:
        shown = host.check_output("sshd -T").splitlines()
        said = dict(line.split(" ", 1) for line in shown if " " in line)
        assert {key: said.get(key) for key in WANTED} == WANTED
    else:
        left = "find /etc/ssh -name 'sshd*' -o -name 'ssh_host_*'"
        assert host.run(left).stdout == ""
