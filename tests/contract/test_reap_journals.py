"""What reap makes of a dead bake's journal: young, old, damaged, or on a disk that is full."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from amibuild.aws.removal import IN_USE_S
from amibuild.errors import CommandFailed
from amibuild.journal import (
    BakeStarted,
    Created,
    Event,
    Intended,
    Journal,
    Remains,
    Removed,
    ResourceKind,
    Shown,
    journal_path,
)
from amibuild.local.overlay.desk import ACCOUNT
from amibuild.names import Tag, began_at, expiry, new_bake_id
from amibuild.reap import STALE, reap
from amibuild.reaped import Elsewhere, ReapReport, Thing
from amibuild.scope import SEARCH_S
from tests.contract import builder
from tests.contract.builder import Answers, new_project
from tests.contract.conftest import REGION, Aws, Start
from tests.contract.place import Place
from tests.contract.swift import swift
from tests.unit.fakes import disk_ends_at

BAKE, OTHER = "20261122-081500-a1b2c3", "20261122-091500-d4e5f6"
TOKEN = f"{BAKE}-build-0"
# More than the ten looks that are enough for what is old, fewer than half a minute has.
HIDDEN = 20
BUCKET = "a-bucket-of-ours"


def ours(bake_id: str = BAKE, token: str = TOKEN) -> dict[str, str]:
    """The tags of something whose end is far."""
    end = expiry(datetime.now(UTC), timedelta(hours=1))
    return {Tag.IMAGE: "game-host", Tag.BAKE_ID: bake_id, Tag.EXPIRES: end, Tag.TOKEN: token}


def started(bake_id: str = BAKE) -> BakeStarted:
    return BakeStarted(
        bake_id=bake_id, image="game-host", digest="0" * 64, target="local", region=REGION,
        source_ami="ami-1", recipe="amibuild.toml", pid=1, version="1",
    )  # fmt: skip


def intended(at: datetime, kind: ResourceKind = ResourceKind.INSTANCE) -> Intended:
    return Intended(at=at, kind=kind, name="m", token=TOKEN, region=REGION)


def journal(state_dir: Path, *events: Event, bake_id: str = BAKE) -> Path:
    path = journal_path(state_dir, bake_id)
    with Journal(path) as file:
        for event in (started(bake_id), *events):
            file.write(event)
    return path


def tag_all(kind: str, tags: dict[str, str]) -> Any:
    return [{"ResourceType": kind, "Tags": [{"Key": k, "Value": v} for k, v in tags.items()]}]


def machine(aws: Aws) -> str:
    """One that runs, as the endpoint knows: none of its reads has shown it yet."""
    return aws.launch(TagSpecifications=tag_all("instance", ours()))


def volume(aws: Aws, bake_id: str = OTHER) -> str:
    """Of another bake: only its tags tell of it."""
    made = aws.ec2.create_volume(
        AvailabilityZone=f"{REGION}a", Size=1,
        TagSpecifications=tag_all("volume", ours(bake_id, f"{bake_id}-disk")),
    )  # fmt: skip
    return made["VolumeId"]


def reaped(
    aws: Aws,
    state_dir: Path,
    *,
    dry_run: bool = False,
    now: datetime | None = None,
    bucket: str | None = None,
) -> ReapReport:
    return reap(aws.cloud, state_dir, target="local", dry_run=dry_run, now=now, bucket=bucket)


@pytest.mark.parametrize("known", [True, False], ids=["by its id", "by its intent"])
def test_what_a_killed_bake_has_just_made_is_looked_for_while_ec2_may_hide_it(
    start: Start, tmp_path: Path, known: bool
) -> None:
    aws = start(f"visible:instance={HIDDEN}")
    made, now = machine(aws), datetime.now(UTC)
    created = Created(kind=ResourceKind.INSTANCE, id=made, token=TOKEN, region=REGION)
    path = journal(tmp_path, intended(now), *([created] if known else []))
    with swift():
        report = reaped(aws, tmp_path)
    assert report.removed == [Thing(ResourceKind.INSTANCE, made, REGION)]
    assert aws.state(made) == "terminated"
    left = Remains(path)
    assert (left.intents, left.resources) == ({}, {})


def test_a_dry_run_after_a_kill_tells_what_the_next_reap_finds(
    start: Start, tmp_path: Path
) -> None:
    aws = start(f"visible:instance={HIDDEN}")
    made = machine(aws)
    journal(tmp_path, intended(datetime.now(UTC)))
    with swift():
        dry = reaped(aws, tmp_path, dry_run=True)
    assert dry.would_remove == [Thing(ResourceKind.INSTANCE, made, REGION)]


def test_what_is_older_than_that_is_not_waited_for(aws: Aws, tmp_path: Path) -> None:
    long_ago = datetime.now(UTC) - timedelta(seconds=SEARCH_S)
    path = journal(tmp_path, intended(long_ago))
    with swift() as clock:
        began = clock.monotonic()
        assert reaped(aws, tmp_path).removed == []
        assert clock.monotonic() - began < SEARCH_S / 3
    assert Remains(path).intents == {}


def test_on_a_full_disk_all_goes_and_the_report_is_told(start: Start, tmp_path: Path) -> None:
    """The journal loses its lines, not the account its clean-up; the next reap writes them."""
    aws = start()
    known, by_intent, by_tags = machine(aws), machine(aws), volume(aws)
    created = Created(kind=ResourceKind.INSTANCE, id=known, token="another", region=REGION)
    path = journal(tmp_path, created, intended(datetime.now(UTC)))
    # What the endpoint writes meanwhile has room below that.
    path.write_bytes(path.read_bytes() + b"." * 2_000_000)
    with disk_ends_at(path.stat().st_size):
        report = reaped(aws, tmp_path, now=datetime.now(UTC) + timedelta(days=1))
    assert {one.id for one in report.removed} == {known, by_intent, by_tags}
    assert Remains(path).resources.keys() == {known}
    with swift():
        reaped(aws, tmp_path)
    left = Remains(path)
    assert (left.intents, left.resources) == ({}, {})


def flipped(whole: bytes) -> Iterator[bytes]:
    """Each bit of what says where and whose it is, and some of the rest."""
    first = whole.index(b"\n")
    region, bake = whole.index(b'"us-east-1'), whole.index(b'"2026')
    there = whole.index(b'"us-east-1', first)
    picked = [
        *range(region, region + 11, 3),
        *range(bake, bake + 22, 7),
        *range(there, there + 11, 2),
    ]
    luck = random.Random(7)
    for at in (*picked, *(luck.randrange(len(whole)) for _ in range(8))):
        raw = bytearray(whole)
        raw[at] ^= 1 << luck.randrange(8)
        yield bytes(raw)


def test_a_flipped_bit_in_one_journal_keeps_no_other_from_being_reaped(
    aws: Aws, tmp_path: Path
) -> None:
    """Nor is what that one made called gone, except where it is its id that is damaged."""
    token = f"{BAKE}-disk"
    made = aws.ec2.create_volume(
        AvailabilityZone=f"{REGION}a", Size=1,
        TagSpecifications=tag_all("volume", ours(BAKE, token)),
    )["VolumeId"]  # fmt: skip
    created = Created(kind=ResourceKind.VOLUME, id=made, token=token, region=REGION)
    path = journal(tmp_path, created)
    whole = path.read_bytes()
    for number, raw in enumerate(flipped(whole)):
        path.write_bytes(raw)
        other = volume(aws)
        after = Created(kind=ResourceKind.VOLUME, id=other, token="t", region=REGION)
        journal(tmp_path, after, bake_id=OTHER)
        with swift():
            report = reaped(aws, tmp_path)
        assert Thing(ResourceKind.VOLUME, other, REGION) in report.removed, number
        assert {one.region for one in report.removed} == {REGION}, number
        if Thing(ResourceKind.VOLUME, made, REGION) in report.removed:
            made = aws.ec2.create_volume(
                AvailabilityZone=f"{REGION}a", Size=1,
                TagSpecifications=tag_all("volume", ours(BAKE, token)),
            )["VolumeId"]  # fmt: skip
            whole = re.sub(rb"vol-[0-9a-f]+", made.encode(), whole)
        else:
            named = {one.thing.id for one in report.leased} | {one.id for one in report.left}
            assert made in named, number


def test_what_is_no_file_among_the_journals_is_told_and_in_nobodys_way(
    aws: Aws, tmp_path: Path
) -> None:
    odd = journal_path(tmp_path, "20260101-000000-aaaaaa")
    odd.mkdir(parents=True)
    made = volume(aws)
    created = Created(kind=ResourceKind.VOLUME, id=made, token="t", region=REGION)
    journal(tmp_path, created, bake_id=OTHER)
    report = reaped(aws, tmp_path)
    assert [one.id for one in report.removed] == [made]
    (told,) = report.unreached
    assert (told.journal, told.reason) == (str(odd), "Is a directory")


def test_an_image_whose_id_is_damaged_is_told_and_stops_nothing(aws: Aws, tmp_path: Path) -> None:
    made = volume(aws)
    odd = Created(kind=ResourceKind.IMAGE, id="ami-0zz", token="a", region=REGION)
    created = Created(kind=ResourceKind.VOLUME, id=made, token="t", region=REGION)
    journal(tmp_path, odd, created)
    report = reaped(aws, tmp_path)
    assert [one.id for one in report.removed] == [made]
    assert [one.id for one in report.left] == ["ami-0zz"]
    assert report.unreached == []


def test_a_region_that_botocore_refuses_is_told_like_one_that_aws_does(
    aws: Aws, tmp_path: Path
) -> None:
    made = volume(aws)
    created = Created(kind=ResourceKind.VOLUME, id=made, token="t", region=REGION)
    journal(tmp_path, created, bake_id=OTHER)
    report = reap(aws.cloud, tmp_path, target="local", dry_run=False, regions=["us-east,1", REGION])
    assert [one.id for one in report.removed] == [made]
    assert [one.region for one in report.unreached] == ["us-east,1"]


def test_what_can_not_be_removed_is_tried_once_and_told_once(start: Start, tmp_path: Path) -> None:
    aws = start("DeleteVolume:*=VolumeInUse")
    made = volume(aws, BAKE)
    created = Created(kind=ResourceKind.VOLUME, id=made, token="t", region=REGION)
    journal(tmp_path, created)
    with swift() as clock:
        began = clock.monotonic()
        report = reaped(aws, tmp_path, now=datetime.now(UTC) + timedelta(days=1))
        spent = clock.monotonic() - began
    assert [one.id for one in report.left] == [made]
    assert spent < 1.5 * IN_USE_S


def test_a_bake_that_is_resumed_while_others_are_reaped_loses_nothing(
    aws: Aws, tmp_path: Path
) -> None:
    """Its end is past, and at first it was dead."""
    resumed = volume(aws)
    late = journal(tmp_path, bake_id=OTHER)
    first = volume(aws, BAKE)
    journal(tmp_path, Created(kind=ResourceKind.VOLUME, id=first, token="t", region=REGION))
    with ExitStack() as while_it_lives:

        def resume(shown: Shown) -> None:
            if isinstance(shown, Removed):
                while_it_lives.enter_context(Journal(late))

        report = reap(
            aws.cloud, tmp_path, target="local", dry_run=False, subscribers=(resume,),
            now=datetime.now(UTC) + timedelta(days=1),
        )  # fmt: skip
    assert [one.id for one in report.removed] == [first]
    assert report.live == [OTHER]
    assert aws.cloud.ec2.volume_state(resumed) == "available"


def of_account(state_dir: Path, account: str, made: str) -> Path:
    """The journal of a dead bake there that has left this volume, too long ago to be hidden."""
    path, at = journal_path(state_dir, BAKE), datetime.now(UTC) - timedelta(hours=1)
    with Journal(path) as file:
        file.write(started().model_copy(update={"account": account}))
        file.write(Created(at=at, kind=ResourceKind.VOLUME, id=made, token="t", region=REGION))
    return path


def test_a_bake_of_another_account_is_left_for_a_call_with_that(aws: Aws, tmp_path: Path) -> None:
    """Here its ids are not found, which does not mean that they are gone."""
    assert aws.cloud.account == ACCOUNT
    path = of_account(tmp_path, "444455556666", "vol-0123456789abcdef0")
    text = path.read_text()
    for dry_run in (True, False):
        report = reaped(aws, tmp_path, dry_run=dry_run)
        assert report.elsewhere == [Elsewhere(BAKE, "local", REGION, "444455556666")]
        assert (report.removed, report.would_remove) == ([], [])
    assert path.read_text() == text


def test_whose_account_it_is_need_not_be_known(start: Start, tmp_path: Path) -> None:
    """In a network without a way to STS all is as it was before that was asked."""
    aws = start("GetCallerIdentity:*=AccessDenied")
    assert aws.cloud.account == ""
    made = volume(aws)
    of_account(tmp_path, "444455556666", made)
    assert [one.id for one in reaped(aws, tmp_path).removed] == [made]


def test_a_bake_says_in_which_account_it_is(start: Start, tmp_path: Path) -> None:
    aws = start(script=Answers(exit_codes={"os": 3}))
    project = new_project(tmp_path / "project")
    with pytest.raises(CommandFailed):
        builder.run(project, aws.cloud)
    (path,) = (project.state_dir / "journals").iterdir()
    begun = Remains(path).started
    assert begun is not None and begun.account == ACCOUNT


def test_the_stores_of_the_local_target_are_told_apart(here: Place) -> None:
    """They all have the same account."""
    state_dir, store = here.folder / ".amibuild", (here.folder / "data" / "none").resolve()
    here.run("local", "up", "--machine", "none")
    for place, elsewhere in (("/another", [f"{ACCOUNT} /another"]), (str(store), [])):
        path = of_account(state_dir, f"{ACCOUNT} {place}", "vol-0123456789abcdef0")
        said = here.ask("reap")
        assert [one["account"] for one in said["elsewhere"]] == elsewhere
        assert bool(Remains(path).resources) is bool(elsewhere)
        path.unlink()


@pytest.mark.parametrize("whole", [False, True], ids=["never there", "there from an earlier try"])
def test_the_parts_of_an_upload_that_was_killed_go(aws: Aws, tmp_path: Path, whole: bool) -> None:
    """They are no object, and are paid for until somebody ends the upload."""
    aws.s3.create_bucket(Bucket=BUCKET)
    key, beside = f"amibuild/artifacts/{BAKE}/5e5e", f"amibuild/artifacts/{BAKE}/5e5e5e"
    for one in (key, beside):
        upload = aws.s3.create_multipart_upload(Bucket=BUCKET, Key=one)["UploadId"]
        aws.s3.upload_part(Bucket=BUCKET, Key=one, UploadId=upload, PartNumber=1, Body=b"part")
    if whole:
        aws.s3.put_object(Bucket=BUCKET, Key=key, Body=b"an earlier try")
    intent = intended(datetime.now(UTC), ResourceKind.OBJECT)
    url = f"s3://{BUCKET}/{key}"
    path = journal(tmp_path, intent.model_copy(update={"name": url}))
    with swift():
        report = reaped(aws, tmp_path)
    assert report.removed == [Thing(ResourceKind.OBJECT, url, REGION)]
    assert [one["Key"] for one in aws.s3.list_multipart_uploads(Bucket=BUCKET)["Uploads"]] == [
        beside
    ]
    assert "Contents" not in aws.s3.list_objects_v2(Bucket=BUCKET)
    assert Remains(path).intents == {}


def test_who_may_not_look_for_parts_is_told_so_of_an_upload_that_did_not_end(
    start: Start, tmp_path: Path
) -> None:
    """A whole object goes all the same: a role may be older than that look."""
    aws = start("ListMultipartUploads:*=AccessDenied")
    aws.s3.create_bucket(Bucket=BUCKET)
    aws.s3.put_object(Bucket=BUCKET, Key="whole", Body=b"all of it")
    url, other = f"s3://{BUCKET}/whole", f"s3://{BUCKET}/not-ended"
    created = Created(kind=ResourceKind.OBJECT, id=url, token="t", region=REGION)
    intent = intended(datetime.now(UTC), ResourceKind.OBJECT)
    path = journal(tmp_path, created, intent.model_copy(update={"name": other}))
    with swift():
        report = reaped(aws, tmp_path)
    assert [one.id for one in report.removed] == [url]
    (left,) = report.left
    assert left.id == other
    assert "ListMultipartUploads" in left.reason
    assert Remains(path).intents.keys() == {TOKEN}


def test_files_of_a_bake_without_a_journal_go_when_it_can_not_live(
    aws: Aws, tmp_path: Path
) -> None:
    aws.s3.create_bucket(Bucket=BUCKET)
    now = began_at(BAKE) + STALE + timedelta(hours=1)
    young = str(new_bake_id(began_at(BAKE) + timedelta(hours=2)))
    names = [f"{folder}/{one}/5e" for folder in ("payloads", "artifacts") for one in (BAKE, young)]
    odd = ["amibuild/manifests/game-host-1.json", f"amibuild/payloads/a-{BAKE}/5e",
           f"other/payloads/{BAKE}/5e", "amibuild/payloads/20261399-000000-a1b2c3/5e"]  # fmt: skip
    for key in (*(f"amibuild/{name}" for name in names), *odd):
        aws.s3.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    parts = f"amibuild/artifacts/{BAKE}/parts"
    aws.s3.create_multipart_upload(Bucket=BUCKET, Key=parts)
    theirs = {
        f"s3://{BUCKET}/{key}" for key in (f"amibuild/{names[0]}", f"amibuild/{names[2]}", parts)
    }
    for dry_run in (True, False):
        report = reaped(aws, tmp_path, dry_run=dry_run, now=now, bucket=BUCKET)
        assert {one.id for one in (*report.would_remove, *report.removed)} == theirs
    left = {one["Key"] for one in aws.s3.list_objects_v2(Bucket=BUCKET)["Contents"]}
    assert left == {f"amibuild/{names[1]}", f"amibuild/{names[3]}", *odd}
    assert "Uploads" not in aws.s3.list_multipart_uploads(Bucket=BUCKET)


def test_files_of_a_bake_that_still_has_something_stay(aws: Aws, tmp_path: Path) -> None:
    """It may go on for longer than anybody thought: it moves its end on."""
    aws.s3.create_bucket(Bucket=BUCKET)
    for one in (BAKE, OTHER):
        aws.s3.put_object(Bucket=BUCKET, Key=f"amibuild/payloads/{one}/5e", Body=b"x")
    now = began_at(OTHER) + STALE + timedelta(hours=1)
    made = volume(aws)
    aws.cloud.images.tag([made], {Tag.EXPIRES: expiry(now, timedelta(hours=1))})
    report = reaped(aws, tmp_path, now=now, bucket=BUCKET)
    assert [one.id for one in report.removed] == [f"s3://{BUCKET}/amibuild/payloads/{BAKE}/5e"]


def test_a_bucket_that_is_not_there_has_nothing_of_dead_bakes(aws: Aws, tmp_path: Path) -> None:
    report = reaped(aws, tmp_path, bucket=BUCKET)
    assert (report.removed, report.left, report.unreached) == ([], [], [])
