"""A bake's artifacts: what reaches the builder, by which way, and what stays of it nowhere."""

from __future__ import annotations

import hashlib
import io
import json
import re
import resource
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amibuild.artifacts import ArtifactError, fetch_all, mirror_all, pin
from amibuild.errors import PlanError, UsageError
from amibuild.library.step import StepFile
from amibuild.project import Project, load_project
from amibuild.steps.artifacts import CARRIED_LIMIT_BYTES, ArtifactSources, Places
from tests.contract import builder
from tests.contract.account import account
from tests.contract.builder import Answers
from tests.contract.conftest import Aws, Start

BODY = b"the server" * 1000
PIN = hashlib.sha256(BODY).hexdigest()
BUCKET = "a-bucket-of-ours"
SERVICE = """\
purpose = "A game."
command = ["{{install}}/server"]
memory_mib = 64
[[ports]]
name = "game"
port = 7777
protocol = "udp"
[artifact]
url = "{url}"
sha256 = "{sha256}"
unpack = false
"""


def project(tmp_path: Path, url: str, *, sha256: str = PIN, more: str = "") -> Project:
    folder = tmp_path / "project"
    service = folder / "provisioners/services/game"
    service.mkdir(parents=True)
    (service / "service.toml").write_text(SERVICE.format(url=url, sha256=sha256))
    recipe = '[image]\nname = "game-host"\n[provision]\nsteps = []\nservices = ["game"]\n'
    (folder / "amibuild.toml").write_text(recipe + more)
    return load_project(folder / "amibuild.toml")


def with_file(project: Project, body: bytes = BODY) -> Project:
    (project.directory / "server").write_bytes(body)
    return project


def sources(made: tuple[StepFile, ...]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(made[0].content)
    return found


def everything_written(project: Project) -> str:
    return "\n".join(
        path.read_text(errors="replace")
        for path in sorted(project.directory.rglob("*"))
        if path.is_file() and path.name != "server"
    )


def test_a_file_of_this_machine_goes_by_the_bucket_and_is_gone_afterwards(
    start: Start, tmp_path: Path
) -> None:
    aws = start(script=Answers())
    aws.s3.create_bucket(Bucket=BUCKET)
    wanted = with_file(project(tmp_path, "file:server", more=f'[aws]\nbucket = "{BUCKET}"\n'))
    result = builder.run(wanted, aws.cloud)
    kept = aws.s3.list_objects_v2(Bucket=BUCKET)["Contents"]
    assert [o["Key"] for o in kept] == [f"amibuild/manifests/{result.image_name}.json"]
    journal = next((wanted.state_dir / "journals").iterdir()).read_text()
    stored = re.findall(r"amibuild/artifacts/[^\"/]*/([0-9a-f]{64})", journal)
    assert set(stored) == {PIN}


def test_no_signed_address_is_in_a_command_or_in_what_a_bake_writes(
    start: Start, tmp_path: Path
) -> None:
    aws = start(script=Answers())
    aws.s3.create_bucket(Bucket=BUCKET)
    aws.s3.put_object(Bucket=BUCKET, Key="titles/server", Body=BODY)
    url = f"s3://{BUCKET}/titles/server"
    wanted = project(tmp_path, url, more=f'[aws]\nbucket = "{BUCKET}"\n')
    builder.run(wanted, aws.cloud)
    assert not re.search(r"[?&](X-Amz-)?Signature=", everything_written(wanted))
    commands = [str(c["Parameters"]["commands"]) for c in aws.ssm.list_commands()["Commands"]]
    mine, others = (
        [c for c in commands if ("/run/amibuild/game/" in c) == game and "amibuild-reply" in c]
        for game in (True, False)
    )
    # However small it is: its address is told, what is in it is not.
    assert ["amibuild/payloads/" in c and "base64 -d <<" not in c for c in mine] == [True]
    assert any("base64 -d <<" in c for c in others)


def test_with_a_bucket_the_builder_gets_an_address_that_works(aws: Aws, tmp_path: Path) -> None:
    aws.s3.create_bucket(Bucket=BUCKET)
    aws.s3.put_object(Bucket=BUCKET, Key="titles/server", Body=BODY)
    wanted = project(tmp_path, f"s3://{BUCKET}/titles/server")
    (step,) = [s for s in wanted.steps if s.name == "game"]
    made = ArtifactSources(aws.cloud, Places(wanted.directory, None), None)(step)
    (source,) = sources(made)
    assert (source["sha256"], source["name"], len(made)) == (PIN, "server", 1)
    (url,) = source["urls"]
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.read() == BODY


def test_the_mirror_comes_before_the_address(aws: Aws, tmp_path: Path) -> None:
    wanted = project(tmp_path, "https://example.org/server")
    (step,) = [s for s in wanted.steps if s.name == "game"]
    places = Places(wanted.directory, f"s3://{BUCKET}/mirror/")
    (source,) = sources(ArtifactSources(aws.cloud, places, None)(step))
    first, second = source["urls"]
    assert f"/{BUCKET}/mirror/{PIN}?" in first
    assert second == "https://example.org/server"


def test_without_a_bucket_a_small_file_travels_with_the_step(aws: Aws, tmp_path: Path) -> None:
    wanted = with_file(project(tmp_path, "file:server"))
    (step,) = [s for s in wanted.steps if s.name == "game"]
    made = ArtifactSources(aws.cloud, Places(wanted.directory, None), None)(step)
    assert [(f.path, f.content) for f in made[1:]] == [(f"artifacts/blobs/{PIN}", BODY)]
    assert sources(made)[0]["urls"] == []


def test_a_step_without_artifacts_gets_nothing(aws: Aws, tmp_path: Path) -> None:
    wanted = project(tmp_path, "https://example.org/server")
    carry = ArtifactSources(aws.cloud, Places(wanted.directory, None), None)
    assert {s.name: bool(carry(s)) for s in wanted.steps} == {
        "ssm-agent": False,
        "game": True,
        "seal": False,
    }


@pytest.mark.parametrize(
    ("url", "sha256", "body", "problem"),
    [
        ("file:server", PIN, None, "game: .*/server: there is no such file"),
        ("file:server", PIN, b"other", f"game: .*/server has the SHA-256 .*, and {PIN} is pinned"),
        ("https://example.org/x", "0" * 64, None, "game: the checksum of https://example.org/x is"),
        ("s3://a-bucket-of-ours/none", PIN, None, "game: there is no s3://a-bucket-of-ours/none"),
        ("s3://no-such-bucket/none", PIN, None, "game: s3://no-such-bucket/none can't be read"),
    ],
)
def test_preflight_refuses_what_can_not_be_installed(
    start: Start, tmp_path: Path, url: str, sha256: str, body: bytes | None, problem: str
) -> None:
    aws = start(script=Answers())
    aws.s3.create_bucket(Bucket=BUCKET)
    before = account(aws)
    wanted = project(tmp_path, url, sha256=sha256)
    if body is not None:
        with_file(wanted, body)
    with pytest.raises(PlanError, match=problem):
        builder.run(wanted, aws.cloud)
    assert account(aws) == before


def test_preflight_refuses_files_that_are_too_large_to_travel(start: Start, tmp_path: Path) -> None:
    body = bytes(CARRIED_LIMIT_BYTES + 1)
    wanted = project(tmp_path, "file:server", sha256=hashlib.sha256(body).hexdigest())
    with pytest.raises(PlanError, match="8 MiB can travel without a bucket"):
        builder.run(with_file(wanted, body), start(script=Answers()).cloud)


def test_an_upload_that_is_refused_says_so(aws: Aws, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(Exception, match="NoSuchBucket"):
        aws.cloud.s3.put_file("no-such-bucket", "x", tmp_path / "x")


def test_pin_prints_what_the_recipe_takes(tmp_path: Path) -> None:
    archive = tmp_path / "game.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("game-1.2/server")
        member.size = len(BODY)
        tar.addfile(member, io.BytesIO(BODY))
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    found = pin("file:game.tar.gz", tmp_path, None, lambda _: None)
    assert found.toml().splitlines() == [
        "[artifact]",
        'url = "file:game.tar.gz"',
        f'sha256 = "{sha256}"',
        f"size = {archive.stat().st_size}",
        "strip = 1                           # all of it is below game-1.2/",
    ]


def test_pin_knows_a_plain_file(aws: Aws, tmp_path: Path) -> None:
    aws.s3.create_bucket(Bucket=BUCKET)
    aws.s3.put_object(Bucket=BUCKET, Key="server", Body=BODY)
    found = pin(f"s3://{BUCKET}/server", tmp_path, aws.cloud, lambda _: None)
    assert (found.sha256, found.size, found.unpack) == (PIN, len(BODY), False)


def test_what_was_mirrored_needs_its_address_no_more(aws: Aws, tmp_path: Path) -> None:
    aws.s3.create_bucket(Bucket=BUCKET)
    wanted = with_file(project(tmp_path, "file:server"))
    places = Places(wanted.directory, f"s3://{BUCKET}/mirror")
    cloud, cache = aws.cloud, tmp_path / "cache"
    first = mirror_all(wanted.steps, places, cache, cloud, lambda _: None)
    again = mirror_all(wanted.steps, places, cache, cloud, lambda _: None)
    assert [(h.place, h.fresh) for h in (*first, *again)] == [
        (f"s3://{BUCKET}/mirror/{PIN}", True),
        (f"s3://{BUCKET}/mirror/{PIN}", False),
    ]
    elsewhere = project(tmp_path / "elsewhere", f"s3://{BUCKET}/gone")
    held = fetch_all(elsewhere.steps, places, tmp_path / "held", cloud, lambda _: None)
    assert Path(held[0].place).read_bytes() == BODY


def test_a_fetched_folder_can_be_the_mirror(aws: Aws, tmp_path: Path) -> None:
    wanted = with_file(project(tmp_path, "file:server"))
    places = Places(wanted.directory, None)
    fetch_all(wanted.steps, places, wanted.directory / "kept", None, lambda _: None)
    elsewhere = project(tmp_path / "elsewhere", "https://example.org/server")
    (step,) = [s for s in elsewhere.steps if s.name == "game"]
    mirrored = Places(wanted.directory, "kept")
    made = ArtifactSources(aws.cloud, mirrored, None)(step)
    assert made[1].content == BODY


def test_placeholders_are_not_fetched(tmp_path: Path) -> None:
    wanted = project(tmp_path, "https://example.org/x", sha256="0" * 64)
    with pytest.raises(UsageError, match="placeholder"):
        fetch_all(wanted.steps, Places(tmp_path, None), tmp_path, None, lambda _: None)


def test_what_is_not_in_the_mirror_is_said(aws: Aws, tmp_path: Path) -> None:
    aws.s3.create_bucket(Bucket=BUCKET)
    wanted = project(tmp_path, f"s3://{BUCKET}/none")
    with pytest.raises(ArtifactError, match="404"):
        fetch_all(wanted.steps, Places(tmp_path, None), tmp_path / "x", aws.cloud, lambda _: None)
    assert list((tmp_path / "x").iterdir()) == []


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file of this process grows beyond 64 KiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_against_a_full_disk_no_mirror_is_recommended(
    aws: Aws, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    aws.s3.create_bucket(Bucket=BUCKET)
    aws.s3.put_object(Bucket=BUCKET, Key="large", Body=bytes(300_000))
    wanted = project(tmp_path, f"s3://{BUCKET}/large")
    request.getfixturevalue("full_disk")
    with pytest.raises(ArtifactError, match="can't be written: File too large") as caught:
        fetch_all(wanted.steps, Places(tmp_path, None), tmp_path / "x", aws.cloud, lambda _: None)
    assert caught.value.hint is None
    assert list((tmp_path / "x").iterdir()) == []
