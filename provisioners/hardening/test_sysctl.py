"""The kernel's settings, as the kernel has them, of each network interface too."""

from collections.abc import Callable
from pathlib import Path

from testinfra.host import Host

OURS = "90-amibuild.conf"
# Where systemd-sysctl looks; of two files with one name the first counts.
FOLDERS = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d")


def settings(path: Path) -> dict[str, str]:
    lines = [line.split("=", 1) for line in path.read_text().splitlines() if "=" in line]
    said = {key.strip().lstrip("-"): value.strip() for key, value in lines}
    return {key: value for key, value in said.items() if not key.startswith(("#", ";"))}


def test_the_kernel_has_every_setting(
    host: Host, own_kernel: None, record_property: Callable[[str, object], None]
) -> None:
    ours = settings(Path(FOLDERS[0], OURS))
    assert len(ours) > 30
    files = {p.name: p for folder in reversed(FOLDERS) for p in Path(folder).glob("*.conf")}
    # What comes behind ours has the last word; a recipe may want it so, and then it is told.
    later: dict[str, str] = {}
    for name in sorted(name for name in files if name > OURS):
        later |= {key: value for key, value in settings(files[name]).items() if key in ours}
    told = [f"{key}={value}" for key, value in later.items() if ours[key] != value]
    record_property("sysctl.overridden", " ".join(told))
    wanted: dict[Path, str] = {}
    # Those with a star are for what no line names by itself.
    for key, value in sorted((ours | later).items(), key=lambda pair: "*" not in pair[0]):
        # What a kernel was not built with can't be set; Debian's has all of them.
        found = sorted(Path("/proc/sys").glob(key.replace(".", "/")))
        assert found, key
        wanted |= dict.fromkeys(found, value)
    assert {str(p): p.read_text().strip() for p in wanted} == {str(p): v for p, v in wanted.items()}
