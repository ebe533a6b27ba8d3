"""Modes and owners, as they are on the disk."""

from testinfra.host import Host

WANTED = "/etc/tmpfiles.d/amibuild-permissions.conf"


def test_every_file_has_the_mode_it_should(host: Host) -> None:
    lines = host.check_output("cat %s", WANTED).splitlines()
    rules = [line.split() for line in lines if line.startswith("z ")]
    wanted = {path: f"{owner} {group} {mode}" for _, path, mode, owner, group in rules}
    told = host.run("stat -c '%n %U %G 0%a' " + " ".join(wanted)).stdout
    seen = dict(line.split(" ", 1) for line in told.splitlines())
    assert {"/etc/passwd", "/etc/shadow", "/root"} <= seen.keys()
    assert seen == {path: wanted[path] for path in seen}
