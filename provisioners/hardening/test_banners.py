"""What is said before a login, and what is not."""

from testinfra.host import Host


def test_they_warn_and_do_not_name_the_system(host: Host) -> None:
    said = host.check_output("cat /etc/issue /etc/issue.net /etc/motd")
    assert said.count("authorized users only") == 2
    assert "Debian" not in said and "\\" not in said
    modes = host.check_output("stat -c '%U %a' /etc/issue /etc/issue.net /etc/motd")
    assert set(modes.splitlines()) == {"root 644"}
