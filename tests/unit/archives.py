"""Archives that the tests make, honest ones and others."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

Content = Mapping[str, bytes]
HONEST: Content = {"game/bin/server": b"\x7fELF and so on", "game/data/map.txt": b"here\n"}
EXECUTABLE = ("game/bin/server",)


def tar(
    path: Path,
    compression: str = "",
    content: Content = HONEST,
    extra: tuple[tarfile.TarInfo, ...] = (),
) -> Path:
    with tarfile.open(path, f"w:{compression}") as archive:  # type: ignore[call-overload]
        for name, body in content.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(body), 0o4777 if name in EXECUTABLE else 0o666
            member.uid = member.gid = 1234
            archive.addfile(member, io.BytesIO(body))
        for member in extra:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0
) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, size
    return made


def zipped(path: Path, content: Content = HONEST, links: Mapping[str, str] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in content.items():
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = (stat.S_IFREG | (0o755 if name in EXECUTABLE else 0o644)) << 16
            archive.writestr(info, body)
        for name, link in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, link)
    return path
