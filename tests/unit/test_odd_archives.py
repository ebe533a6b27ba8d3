"""Damaged archives and bombs: refused in one line, within their folder and within bounds."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amibuild.library.every_service import unpack
from amibuild.library.every_service.unpack import Unsafe, unpack_all
from tests.unit.archives import member, tar, zipped

BOUNDED = settings(max_examples=120, deadline=None, derandomize=True)
KINDS = ("zip", "", "gz", "xz", "bz2")
LABEL = "a" * 64


class Place:
    """A folder to unpack to, with something beside it that must stay."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.archives = {kind: self._made(kind) for kind in KINDS}
        self.fetched = root / "fetched"
        self.fetched.mkdir()
        (root / "beside").write_text("untouched")
        self.round = 0

    def _made(self, kind: str) -> bytes:
        path = self.root / "archive"
        extra = (member("game/link", tarfile.SYMTYPE, "data/map.txt"),)
        made = (
            zipped(path, links={"game/link": "x"})
            if kind == "zip"
            else tar(path, kind, extra=extra)
        )
        raw = made.read_bytes()
        made.unlink()
        return raw

    def unpack(self, raw: bytes) -> Path:
        """Raises: Unsafe."""
        (self.fetched / LABEL).write_bytes(raw)
        self.round += 1
        into = self.root / f"into-{self.round}"
        names = {path.name for path in self.root.iterdir()}
        wanted = {"sha256": LABEL, "into": ".", "strip": 0, "unpack": True}
        try:
            unpack_all([wanted], self.fetched, into)
        finally:
            assert {path.name for path in self.root.iterdir()} == {*names, into.name}
            assert (self.root / "beside").read_text() == "untouched"
        return into


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"))


def told(place: Place, raw: bytes) -> str:
    """Why it was refused; empty where it was not."""
    try:
        place.unpack(raw)
    except Unsafe as error:
        return str(error)
    return ""


@BOUNDED
@given(st.sampled_from(KINDS), st.integers(0, 1 << 20), st.integers(0, 7), st.integers(0, 255))
def test_damage_is_told_in_one_line(place: Place, kind: str, at: int, bit: int, byte: int) -> None:
    raw = bytearray(place.archives[kind])
    raw[at % len(raw)] ^= 1 << bit
    raw[(at // 7) % len(raw)] = byte
    assert len(told(place, bytes(raw)).splitlines()) <= 1


@BOUNDED
@given(st.sampled_from(KINDS), st.integers(0, 1 << 20))
def test_a_cut_is_told_in_one_line(place: Place, kind: str, cut: int) -> None:
    raw = place.archives[kind]
    assert len(told(place, raw[: cut % len(raw)]).splitlines()) <= 1


@BOUNDED
@given(st.sampled_from((b"", b"PK\x03\x04", b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"BZh9")), st.binary())
def test_bytes_are_no_archive(place: Place, magic: bytes, raw: bytes) -> None:
    assert told(place, magic + raw)


names = st.text(st.sampled_from("a./\\\0 é\n\x1b"), min_size=1, max_size=12)
entries = st.lists(
    st.tuples(
        names,
        st.sampled_from(
            (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE)
        ),
        names,
    ),
    min_size=1,
    max_size=5,
)


@BOUNDED
@given(entries)
def test_no_names_and_links_lead_out(place: Place, made: list[tuple[str, bytes, str]]) -> None:
    """Place looks at what is beside the folder, and no link in it leads out."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, link in made:
            archive.addfile(member(name, kind, link))
    try:
        into = place.unpack(buffer.getvalue())
    except Unsafe:
        return
    for path in into.rglob("*"):
        assert path.resolve().is_relative_to(into.resolve())


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """The bound, without a gigabyte to show it."""
    size = 1024 * 1024
    monkeypatch.setattr(unpack, "SMALL", size)
    monkeypatch.setattr(unpack, "CHUNK", 64 * 1024)
    return size


@pytest.mark.parametrize("kind", ["zip", "gz", "xz", "bz2"])
def test_a_bomb_ends_at_its_bound(place: Place, tmp_path: Path, kind: str, small: int) -> None:
    content = {"zeros": bytes(20 * small)}
    path = tmp_path / "bomb"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("zeros", content["zeros"])
    else:
        tar(path, kind, content)
    assert "as a bomb does" in told(place, path.read_bytes())
    into = place.root / f"into-{place.round}"
    assert sum(one.stat().st_size for one in into.rglob("*")) <= max(small, 200 * 30_000)


def test_a_file_of_holes_is_a_bomb_too(place: Place, small: int) -> None:
    """A GNU sparse member takes one block of the archive, whatever it says its size is."""
    header = bytearray(member("holes", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    size = 1 << 32
    header[386:410] = b"%011o\0%011o\0" % (size, 0)
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    assert "as a bomb does" in told(place, bytes(header) + bytes(1024))


def test_very_many_empty_files_are_a_bomb(place: Place, small: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number in range(3000):
            archive.addfile(member(f"{number}"))
    assert "as a bomb does" in told(place, buffer.getvalue())


def test_what_does_not_fit_is_told_before_the_disk_is_full(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpack, "SPARE", 1 << 60)
    assert "of the disk must stay free" in told(place, place.archives["gz"])
