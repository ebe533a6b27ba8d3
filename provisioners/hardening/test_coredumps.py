"""A program that crashes writes nothing."""

from testinfra.host import Host


def test_neither_services_nor_sessions_may_write_one(host: Host) -> None:
    shown = host.check_output("systemctl show --property=DefaultLimitCORE,DefaultLimitCORESoft")
    assert sorted(shown.split()) == ["DefaultLimitCORE=0", "DefaultLimitCORESoft=0"]
    # By PAM, as a session gets it.
    limited = host.run("runuser --user root -- bash -c 'ulimit -S -c; ulimit -H -c'")
    assert limited.stdout.split() == ["0", "0"]
