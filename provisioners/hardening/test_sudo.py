"""sudo's own settings."""

from testinfra.host import Host


def test_its_settings_are_read(host: Host) -> None:
    assert host.run("visudo --check --quiet").rc == 0
    told = host.check_output("sudo --list").replace(",", " ").split()
    assert {"use_pty", "ignore_dot", "env_reset", "timestamp_timeout=5"} <= set(told)


def test_its_files_are_for_root_alone(host: Host) -> None:
    modes = "stat -c '%U %a' /etc/sudoers.d /etc/sudoers.d/amibuild /etc/sudoers"
    assert host.check_output(modes).splitlines() == ["root 750", "root 440", "root 440"]
