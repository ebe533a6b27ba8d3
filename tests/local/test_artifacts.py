"""Services of files that no package brings, on a real machine: a native program and one for Mono.

The native one is a file beside the recipe, the other an object in S3: both reach the builder by
presigned URLs through the bucket, which is the way that a bake on EC2 takes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from amibuild import proc
from tests.local.host import left_on_host
from tests.local.scenario import Called, amibuild, new_project

pytestmark = [
    pytest.mark.machine,
    pytest.mark.skipif(os.geteuid() != 0, reason="nspawn needs root"),
    pytest.mark.skipif(
        proc.which("gcc") is None or proc.which("mcs") is None,
        reason="gcc makes the native server, mcs the one for Mono",
    ),
]

TITLES = Path(__file__).parent / "titles"
BUCKET = "titles-of-ours"
RECIPE = f"""\
[image]
name = "two-titles"
[provision]
steps = []
services = ["native", "managed"]
[aws]
bucket = "{BUCKET}"
"""
SERVICE = """\
purpose = "A {name} server that the tests made."
command = {command}
memory_mib = 128
{keys}
[artifact]
url = "{url}"
sha256 = "{sha256}"
{how}
[[ports]]
name = "game"
port = {port}
protocol = "tcp"
"""
CHECK = '''
"""It answers, saves what a kill would lose, and does not own its program."""

ASK = "exec 3<>/dev/tcp/127.0.0.1/{port} && cat <&3"
UNTIL = "for _ in $(seq 60); do bash -c %s && exit 0; sleep 0.5; done; exit 1"


def answer(host):
    return host.check_output("sh -c %s", UNTIL.replace("%s", "'" + ASK + "'"))


def test_it_answers_and_saves_when_it_is_stopped(host, facts):
    first = answer(host)
    assert first.startswith("{name} start ")
    host.check_output("systemctl stop %s", facts["unit"])
    shown = host.check_output("systemctl show --property=Result,ExecMainStatus %s", facts["unit"])
    assert sorted(shown.split()) == ["ExecMainStatus=0", "Result=success"]
    saved = host.file(facts["state_directory"] + "/starts").content_string
    assert first == "{name} start " + saved.strip()
    host.check_output("systemctl start %s", facts["unit"])
    assert answer(host) == "{name} start " + str(int(saved) + 1)


def test_its_user_cannot_change_its_program(host, facts):
    write = host.run("runuser -u %s -- touch %s/new", facts["user"], facts["install"])
    assert write.rc != 0
'''


def add_service(
    folder: Path,
    name: str,
    port: int,
    command: list[str],
    url: str,
    archive: Path,
    *,
    keys: str = "",
    how: str = "",
) -> None:
    place = folder / "provisioners/services" / name
    place.mkdir(parents=True)
    values: dict[str, Any] = {
        "command": json.dumps(command),
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
    }
    text = SERVICE.format(name=name, keys=keys, url=url, how=how, port=port, **values)
    (place / "service.toml").write_text(text)
    title = "native" if name == "native" else "mono"
    check = CHECK.replace("{port}", str(port)).replace("{name}", title)
    (place / f"test_{name}.py").write_text(check)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Iterator[Path]:
    """A recipe of both, with the endpoint up, for it holds the bucket."""
    folder = new_project(tmp_path_factory.mktemp("artifacts") / "project", recipe=RECIPE)
    program = folder / "native"
    proc.run(["gcc", "-static", "-O2", "-o", program, TITLES / "native.c"])
    native = folder / "native.tar.xz"
    with tarfile.open(native, "w:xz") as tar:
        tar.add(program, "native-1.0/bin/native")
    proc.run(["mcs", f"-out:{folder / 'server.exe'}", TITLES / "server.cs"])
    managed = folder / "managed.zip"
    with zipfile.ZipFile(managed, "w") as archive:
        archive.write(folder / "server.exe", "server.exe")
    native_command = ["{install}/bin/native", "{port.game}", "{state}"]
    url = "file:native.tar.xz"
    add_service(folder, "native", 7001, native_command, url, native, how="strip = 1")
    keys = (
        'packages = ["mono-runtime", "libmono-system-core4.0-cil"]\n'
        'runtime = "mono"\nstop_input = "/exit"'
    )
    mono_command = ["/usr/bin/mono", "{install}/server.exe", "{port.game}", "{state}"]
    url = f"s3://{BUCKET}/titles/managed.zip"
    add_service(folder, "managed", 7002, mono_command, url, managed, keys=keys)
    up = amibuild(folder, "local", "up", "--machine", "nspawn", "--json").json
    try:
        s3 = boto3.client(
            "s3",
            endpoint_url=up["url"],
            region_name=up["environment"]["AWS_DEFAULT_REGION"],
            aws_access_key_id=up["environment"]["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=up["environment"]["AWS_SECRET_ACCESS_KEY"],
        )
        s3.create_bucket(Bucket=BUCKET)
        s3.upload_file(str(managed), BUCKET, "titles/managed.zip")
        yield folder
    finally:
        amibuild(folder, "local", "down")
        assert left_on_host() == {}


@pytest.fixture(scope="module")
def baked(project: Path) -> Called:
    done = amibuild(project, "bake", "--json")
    assert done.exit_code == 0, done.story
    return done


def test_both_are_baked_and_answer_on_a_fresh_boot(baked: Called) -> None:
    manifest = json.loads(Path(baked.json["manifest"]).read_text())
    asked = ("answers_and_saves", "cannot_change", "roots_alone", "listens_on", "sandbox_is_tight")
    outcomes = {
        (check["name"].partition("/")[0], word): check["outcome"]
        for check in manifest["checks"]
        for word in asked
        if word in check["name"]
    }
    wanted = {(name, word): "passed" for name in ("native", "managed") for word in asked}
    assert outcomes == wanted


def test_no_address_that_grants_access_was_kept(project: Path, baked: Called) -> None:
    for path in (project / ".amibuild").rglob("*"):
        if path.is_file():
            assert not re.search(rb"[?&](X-Amz-)?Signature=", path.read_bytes()), path


def test_a_wrong_checksum_fails_before_anything_is_made(project: Path, baked: Called) -> None:
    changed = project / "native.tar.xz"
    kept = changed.read_bytes()
    try:
        changed.write_bytes(kept + b"\0")
        done = amibuild(project, "bake")
        assert done.exit_code == 2
        assert "native" in done.story
        assert "is pinned" in done.story
    finally:
        changed.write_bytes(kept)


@pytest.mark.soak
def test_an_object_that_changed_fails_the_bake_by_name(project: Path, baked: Called) -> None:
    place = project / "provisioners/services/managed/service.toml"
    text = place.read_text()
    try:
        pinned = tomllib.loads(text)["artifact"]["sha256"]
        place.write_text(text.replace(pinned, "b" * 64))
        # Alone: what others do when one fails is tests/contract/test_bake_services.py.
        done = amibuild(project, "bake", "--set", 'provision.services=["managed"]')
        assert done.exit_code == 3
        (told,) = [line for line in done.story.splitlines() if "not fetched: managed.zip" in line]
        assert f"has the SHA-256 {pinned}, and {'b' * 64} was expected" in told
    finally:
        place.write_text(text)
