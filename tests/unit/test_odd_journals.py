"""Damaged journals and manifests: what is whole in them is found, the rest is no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amibuild.errors import RecipeError
from amibuild.journal import (
    BakeEnded,
    BakeStarted,
    Created,
    Event,
    Intended,
    Journal,
    Noted,
    Outcome,
    Remains,
    Removed,
    ResourceKind,
    read,
)
from amibuild.outputs.manifest import to_json
from amibuild.outputs.runbook import render
from amibuild.record import manifest_of
from tests.unit.samples import manifest

BOUNDED = settings(max_examples=200, deadline=None, derandomize=True)
REGION = "us-east-1"
KINDS = (ResourceKind.SECURITY_GROUP, ResourceKind.INSTANCE, ResourceKind.IMAGE)


def events(bake: str) -> list[Event]:
    """A bake that was killed after it made three things and removed one."""
    made: list[Event] = [
        BakeStarted(
            bake_id=bake,
            image="game-host",
            digest="0" * 64,
            target="local",
            region=REGION,
            source_ami="ami-1",
            recipe="/home/amibuild.toml",
            pid=1,
            version="1",
        )
    ]
    for kind in KINDS:
        name, token = f"{bake}-{kind}", f"{bake}-{kind}-token"
        made += [
            Intended(kind=kind, name=name, token=token, region=REGION),
            Created(kind=kind, id=f"{bake}-{kind}-id", token=token, region=REGION),
        ]
    removed = Removed(kind=KINDS[1], id=f"{bake}-{KINDS[1]}-id", region=REGION)
    said = Noted(text='it says {"at": 1} and "}\n{"at":"')
    return [*made, said, removed, BakeEnded(outcome=Outcome.FAILED, seconds=1)]


ONE, OTHER = events("one"), events("other")


def lines(of: list[Event]) -> list[bytes]:
    return [event.model_dump_json().encode() for event in of]


def whole(of: list[Event]) -> bytes:
    return b"".join(line + b"\n" for line in lines(of))


ENDS = [at for at, byte in enumerate(whole(ONE)) if byte == ord("\n")]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("odd") / "b.jsonl"


@BOUNDED
@given(at=st.one_of(st.sampled_from(ENDS), st.integers(0, ENDS[-1])), bit=st.integers(0, 7))
def test_a_flipped_bit_costs_one_event_at_most(path: Path, at: int, bit: int) -> None:
    raw = bytearray(whole(ONE))
    raw[at] ^= 1 << bit
    path.write_bytes(raw)
    hit = whole(ONE).count(b"\n", 0, at)
    on_its_end = whole(ONE)[at] == ord("\n")
    found = list(read(path))
    for number, event in enumerate(ONE):
        assert event in found or (number == hit and not on_its_end)
    Remains(path)


@BOUNDED
@given(
    order=st.lists(st.booleans(), min_size=30, max_size=30),
    torn=st.integers(0, 29),
    length=st.integers(0, 80),
)
def test_two_writers_keep_all_their_whole_lines(
    path: Path, order: list[bool], torn: int, length: int
) -> None:
    """And one of them is killed in the middle of a line, which has no end then."""
    left, raw = {True: lines(ONE), False: lines(OTHER)}, b""
    for number, who in enumerate(order):
        if number == torn:
            raw += lines(ONE)[-1][:length]
        if left[who]:
            raw += left[who].pop(0) + b"\n"
    raw += b"".join(line + b"\n" for rest in left.values() for line in rest)
    path.write_bytes(raw)
    found = list(read(path))
    assert [event for event in found if event in ONE] == ONE
    assert [event for event in found if event in OTHER] == OTHER
    made = {event.id for event in (*ONE, *OTHER) if isinstance(event, Created)}
    gone = {event.id for event in (*ONE, *OTHER) if isinstance(event, Removed)}
    assert Remains(path).resources.keys() == made - gone


@BOUNDED
@given(cut=st.integers(0, len(whole(ONE))), more=st.binary(max_size=40))
def test_what_was_made_is_known_by_its_id_or_its_intent(path: Path, cut: int, more: bytes) -> None:
    """Cut anywhere, with what else was on the disk behind it, as a lost power supply leaves it."""
    path.write_bytes(whole(ONE)[:cut] + more)
    known = Remains(path)
    begun = whole(ONE)[:cut].split(b"\n")[:-1]
    for event in ONE[: len(begun)]:
        if isinstance(event, Intended):
            made = {created.token for created in known.resources.values()}
            gone = event.kind == KINDS[1] and len(begun) >= len(ONE) - 1
            assert event.token in known.intents or event.token in made or gone


@BOUNDED
@given(st.binary(max_size=300))
def test_bytes_are_no_journal(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    assert Remains(path).resources == {}


def test_a_bake_whose_time_has_no_zone_is_not_believed(path: Path) -> None:
    """`reap` counts from it, and Python can't take one kind of time from the other."""
    path.write_bytes(whole(ONE).replace(b"Z", b"", 1))
    assert Remains(path).started is None


def test_a_journal_goes_on_after_any_damage(path: Path) -> None:
    path.write_bytes(whole(ONE)[:-1] + b"\xff\x00")
    with Journal(path) as journal:
        journal.write(OTHER[0])
    assert list(read(path))[-1] == OTHER[0]


MANIFEST = to_json(manifest()).encode()


@BOUNDED
@given(
    cut=st.integers(0, len(MANIFEST)),
    at=st.integers(0, len(MANIFEST) - 1),
    bit=st.integers(0, 7),
    keep=st.booleans(),
)
def test_a_damaged_manifest_is_read_or_told(
    path: Path, cut: int, at: int, bit: int, keep: bool
) -> None:
    image = manifest().image
    folder = path.parent / "manifests"
    folder.mkdir(exist_ok=True)
    raw = bytearray(MANIFEST)
    raw[at] ^= 1 << bit
    (folder / f"{image.name}.json").write_bytes(raw if keep else MANIFEST[:cut])
    try:
        found = manifest_of(path.parent, image.name, image.id)
    except RecipeError as error:
        assert error.problems
        assert all(str(problem).isprintable() for problem in error.problems)
    else:
        if found is not None:
            render([found, manifest()])
