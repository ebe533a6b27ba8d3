"""What a data folder's endpoints and machines have on this host: nothing, once they have ended.

Other people's endpoints may run meanwhile: only what is of the data folder counts, and what
carries our names and is nobody's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from amibuild.endpoint import data_dir
from amibuild.errors import WaitTimeout
from amibuild.wait import Look, until

KEEPER = "amibuild.local.machines.supervisor"
NETWORK = "@amibuild-network-"


def left_on_host(*, grace_s: float = 20) -> dict[str, set[str]]:
    """By kind, what is there; empty once nothing of ours is left.

    The kernel takes some of it away by itself, after the process: it gets `grace_s` for that.
    """
    with suppress(WaitTimeout):
        until(
            lambda: Look("busy", None if on_host() else True),
            what="the host to be clean",
            timeout_s=grace_s,
        )
    return on_host()


def on_host() -> dict[str, set[str]]:
    data = data_dir().resolve()
    pids = set(_pids())
    ours = {pid: why for pid in pids if (why := _why_ours(pid, data))}
    held = _networks_held()
    found = {
        "processes": {f"{pid} {_words(pid)[:120]} ({why})" for pid, why in ours.items()},
        "mounts": set(_mounts(data)),
        "loops": set(_loops(data)),
        "control groups": {str(g) for g in _groups() if _is_ours_or_nobodys(g, pids, set(ours))},
        "sockets": {name for name, holders in held.items() if holders & set(ours)},
        "links": {
            link
            for link in _links()
            if not (holders := held.get(NETWORK + link.removeprefix("amib"))) or holders & set(ours)
        },
        "files": set(_files(data / "local")),
    }
    return {kind: what for kind, what in found.items() if what}


def _pids() -> Iterator[int]:
    myself = {os.getpid(), *_ancestors(os.getpid())}
    return (int(p.name) for p in Path("/proc").glob("[0-9]*") if int(p.name) not in myself)


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        yield pid


def _why_ours(pid: int, data: Path) -> str:
    """Empty for a process that has nothing to do with the data folder."""
    if str(data) in _words(pid):
        return "names the data folder"
    folder = _link(pid, "cwd")
    if folder and Path(folder).is_relative_to(data):
        return "works in the data folder"
    if str(data) in _read(Path(f"/proc/{pid}/mountinfo")):
        return "has a mount of the data folder"
    return ""


def _words(pid: int) -> str:
    return _read(Path(f"/proc/{pid}/cmdline")).replace("\0", " ").strip()


def _read(path: Path) -> str:
    """Empty when what it tells of ended meanwhile."""
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _link(pid: int, name: str) -> str:
    try:
        return str(Path(f"/proc/{pid}/{name}").readlink()).removesuffix(" (deleted)")
    except OSError:
        return ""


def _mounts(data: Path) -> Iterator[str]:
    """In every mount namespace: one lives as long as a process in it."""
    for table in Path("/proc").glob("[0-9]*/mountinfo"):
        yield from (line for line in _read(table).splitlines() if str(data) in line)


def _loops(data: Path) -> Iterator[str]:
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        if str(data) in (file := _read(backing).strip()):
            yield f"{backing.parts[3]} {file}"


def _groups() -> Iterator[Path]:
    for folder, names, _ in os.walk("/sys/fs/cgroup"):
        yield from (Path(folder, name) for name in names if name.startswith("amibuild-i-"))


def _is_ours_or_nobodys(group: Path, pids: set[int], ours: set[int]) -> bool:
    keeper = int(group.name.rpartition("-")[2])
    return keeper in ours or keeper not in pids or KEEPER not in _words(keeper)


def _networks_held() -> dict[str, set[int]]:
    """The names of our abstract sockets -> the processes that have them open."""
    inodes = {}
    for line in _read(Path("/proc/net/unix")).splitlines():
        fields = line.split()
        if fields[-1].startswith(NETWORK):
            inodes[f"socket:[{fields[6]}]"] = fields[7]
    found: dict[str, set[int]] = {name: set() for name in inodes.values()}
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        for descriptor in _open_files(process):
            with suppress(OSError):
                if name := inodes.get(str(descriptor.readlink())):
                    found[name].add(int(process.name))
    return found


def _open_files(process: Path) -> list[Path]:
    """Nothing of one that ends meanwhile."""
    with suppress(OSError):
        return list((process / "fd").iterdir())
    return []


def _links() -> Iterator[str]:
    for folder in Path("/sys/class/net").iterdir():
        if folder.name.startswith("amib") and folder.name.removeprefix("amib").isdigit():
            yield folder.name


def _files(local: Path) -> Iterator[str]:
    """What of the data folder belongs to a running endpoint, and what was half-made."""
    for root in (local, local / "none"):
        marks = [root / "endpoint.json", root / "endpoint.new", root / "machines"]
        marks += [*root.glob("base/making-*"), *root.glob("store/temporary/*")]
        yield from (str(mark) for mark in marks if mark.exists())
        yield from map(str, root.glob("machines/*"))
