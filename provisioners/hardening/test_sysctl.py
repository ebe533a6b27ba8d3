"""The kernel's settings, as the kernel has them."""

from pathlib import Path

from testinfra.host import Host

OURS = Path("/etc/sysctl.d/90-amibuild.conf")


def test_the_kernel_has_every_setting(host: Host, own_kernel: None) -> None:
    lines = [line.split("=", 1) for line in OURS.read_text().splitlines() if "=" in line]
    wanted = {key.strip(): value.strip() for key, value in lines if not key.startswith("#")}
    assert len(wanted) > 30
    paths = {key: Path("/proc/sys", key.replace(".", "/")) for key in wanted}
    # What a kernel was not built with can't be set; Debian's has all of them.
    seen = {k: p.read_text().strip() if p.exists() else "missing" for k, p in paths.items()}
    assert seen == wanted
