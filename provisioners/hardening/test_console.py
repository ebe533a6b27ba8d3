"""Ways past the login at a console."""

from testinfra.host import Host


def test_they_are_masked(host: Host) -> None:
    told = host.run("systemctl is-enabled ctrl-alt-del.target debug-shell.service")
    assert told.stdout.split() == ["masked", "masked"]
