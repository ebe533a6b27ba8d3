"""Archives unpack to what is in them; dishonest ones to nothing outside of their folder."""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.library.every_service.unpack import Unsafe, unpack, unpack_all
from tests.unit.archives import HONEST, member, tar, zipped

SCRIPT = Path(__file__).parents[2] / "amibuild/library/every_service/unpack.py"


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "place" / "into"
    folder.mkdir(parents=True)
    return folder


def made(tmp_path: Path, kind: str) -> Path:
    # The name says nothing: get-download/2.0/headless/linux64 is a tar.xz.
    path = tmp_path / "archive"
    return zipped(path) if kind == "zip" else tar(path, kind)


@pytest.mark.parametrize("kind", ["zip", "", "gz", "xz", "bz2"])
def test_each_format_unpacks_by_its_first_bytes(tmp_path: Path, into: Path, kind: str) -> None:
    assert unpack(made(tmp_path, kind), into) == 2
    assert tree(into) == dict(HONEST)


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_modes_are_plain_whatever_the_archive_says(tmp_path: Path, into: Path, kind: str) -> None:
    unpack(made(tmp_path, kind), into)
    modes = {p.name: oct(p.stat().st_mode & 0o7777) for p in into.rglob("*")}
    assert modes == {
        "game": "0o755",
        "bin": "0o755",
        "data": "0o755",
        "server": "0o755",
        "map.txt": "0o644",
    }
    assert {(p.stat().st_uid, p.stat().st_gid) for p in into.rglob("*")} == {
        (into.stat().st_uid, into.stat().st_gid)
    }


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_leading_folders_are_left_out(tmp_path: Path, into: Path, kind: str) -> None:
    unpack(made(tmp_path, kind), into, strip=1)
    assert sorted(tree(into)) == ["bin/server", "data/map.txt"]


def test_a_strip_that_leaves_nothing_is_a_mistake(tmp_path: Path, into: Path) -> None:
    with pytest.raises(Unsafe, match="nothing is left of it without its first 3 folders"):
        unpack(made(tmp_path, "gz"), into, strip=3)


def test_links_inside_stay_links(tmp_path: Path, into: Path) -> None:
    links = (
        member("game/current", tarfile.SYMTYPE, "data/map.txt"),
        member("game/data/again.txt", tarfile.LNKTYPE, "game/data/map.txt"),
    )
    unpack_all(*manifest(tmp_path, tar(tmp_path / "a", "gz", extra=links), strip=1), into)
    assert (into / "current").is_symlink()
    assert (into / "current").read_bytes() == b"here\n"
    assert (into / "data/again.txt").samefile(into / "data/map.txt")


def manifest(
    tmp_path: Path, path: Path, *, strip: int = 0
) -> tuple[list[Mapping[str, object]], Path]:
    """The archive as the only one that is wanted, where fetch.py leaves it."""
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    path.rename(fetched / ("a" * 64))
    return [{"sha256": "a" * 64, "into": ".", "strip": strip, "unpack": True}], fetched


DISHONEST = {
    "above": (member("../evil", size=1),),
    "above, deeper": (member("game/../../evil", size=1),),
    "absolute": (member("/tmp/amibuild-evil", size=1),),
    "backslashes": (member("..\\evil", size=1),),
    "a link out": (member("game/out", tarfile.SYMTYPE, "../../outside"),),
    "an absolute link": (member("game/out", tarfile.SYMTYPE, "/etc/passwd"),),
    "through a link": (
        member("game/out", tarfile.SYMTYPE, "../.."),
        member("game/out/evil", size=1),
    ),
    "through a link inside": (
        member("game/in", tarfile.SYMTYPE, "data"),
        member("game/in/evil", size=1),
    ),
    # Each is inside when read by itself: dir/up is below dir only until dir is a link.
    "a chain of links": (
        member("game/one", tarfile.SYMTYPE, "data"),
        member("game/two", tarfile.SYMTYPE, "one/../../.."),
    ),
    "a hard link out": (member("game/out", tarfile.LNKTYPE, "../outside"),),
    "a hard link to a link": (
        member("game/out", tarfile.SYMTYPE, "data/map.txt"),
        member("game/hard", tarfile.LNKTYPE, "game/out"),
    ),
    "a link in a ring": (
        member("game/one", tarfile.SYMTYPE, "two"),
        member("game/two", tarfile.SYMTYPE, "one"),
    ),
    "a device": (member("game/null", tarfile.CHRTYPE),),
    "a pipe": (member("game/pipe", tarfile.FIFOTYPE),),
    "a folder that is a file": (member("game/data", size=1),),
}


@pytest.mark.parametrize("case", DISHONEST)
def test_a_dishonest_tar_is_refused_and_writes_nothing_outside(
    tmp_path: Path, into: Path, case: str
) -> None:
    (into.parent / "outside").write_text("untouched")
    archive = tar(tmp_path / "archive", "gz", extra=DISHONEST[case])
    with pytest.raises(Unsafe):
        unpack_all(*manifest(tmp_path, archive), into)
    assert sorted(p.name for p in into.parent.iterdir()) == ["into", "outside"]
    assert (into.parent / "outside").read_text() == "untouched"
    assert not Path("/tmp/amibuild-evil").exists()


@pytest.mark.parametrize(
    ("content", "links"),
    [
        ({"../evil": b"x"}, {}),
        ({"/tmp/amibuild-evil": b"x"}, {}),
        ({"game/..\\..\\evil": b"x"}, {}),
        ({}, {"out": "../outside"}),
        ({}, {"out": "/etc"}),
        ({"out/evil": b"x"}, {}),
    ],
)
def test_a_dishonest_zip_is_refused_and_writes_nothing_outside(
    tmp_path: Path, into: Path, content: dict[str, bytes], links: dict[str, str]
) -> None:
    (into.parent / "outside").write_text("untouched")
    if "out/evil" in content:
        (into / "out").symlink_to("..")  # as an artifact before it left it
    archive = zipped(tmp_path / "archive", {**HONEST, **content}, links)
    with pytest.raises(Unsafe):
        unpack_all(*manifest(tmp_path, archive), into)
    assert sorted(p.name for p in into.parent.iterdir()) == ["into", "outside"]


def test_an_encrypted_zip_is_refused(tmp_path: Path, into: Path) -> None:
    archive = zipped(tmp_path / "archive")
    raw = bytearray(archive.read_bytes())
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := raw.find(magic, at + 1)) >= 0:
            raw[at + offset] |= 1
    archive.write_bytes(raw)
    with pytest.raises(Unsafe, match="encrypted"):
        unpack_all(*manifest(tmp_path, archive), into)


@pytest.mark.parametrize("kind", ["zip", "gz", "xz", "bz2"])
def test_a_damaged_archive_is_a_clear_failure(tmp_path: Path, into: Path, kind: str) -> None:
    archive = made(tmp_path, kind)
    raw = archive.read_bytes()
    archive.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(Unsafe, match="aaaaaaaaaaaa: "):
        unpack_all(*manifest(tmp_path, archive), into)


def test_what_is_no_archive_says_what_to_write_instead(tmp_path: Path, into: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(b"\x7fELF" + bytes(1000))
    with pytest.raises(Unsafe, match="unpack = false"):
        unpack_all(*manifest(tmp_path, archive), into)


def test_plain_files_keep_their_name_and_programs_may_be_run(tmp_path: Path, into: Path) -> None:
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    (fetched / "1").write_bytes(b"\x7fELF")
    (fetched / "2").write_bytes(b"words")
    wanted = [
        {"sha256": "1", "into": "bin", "strip": 0, "unpack": False, "name": "server"},
        {"sha256": "2", "into": ".", "strip": 0, "unpack": False, "name": "words.txt"},
    ]
    unpack_all(wanted, fetched, into)
    assert tree(into) == {"bin/server": b"\x7fELF", "words.txt": b"words"}
    assert (into / "bin/server").stat().st_mode & 0o777 == 0o755
    assert (into / "words.txt").stat().st_mode & 0o777 == 0o644


def test_as_a_program_it_tells_why_and_fails(tmp_path: Path, into: Path) -> None:
    wanted, fetched = manifest(tmp_path, tar(tmp_path / "a", extra=DISHONEST["above"]))
    (tmp_path / "artifacts.json").write_text(json.dumps(wanted))
    call: list[str | Path] = [sys.executable, SCRIPT, tmp_path / "artifacts.json", fetched, into]
    done = proc.run(call, check=False)
    assert done.exit_code == 1
    assert done.stderr.decode() == (
        "not unpacked: aaaaaaaaaaaa: '../evil' leads out of the archive\n"
    )
