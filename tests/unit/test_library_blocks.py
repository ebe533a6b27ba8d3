"""A secret is found in every block of a disk, with its file and its place on the disk."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import runpy
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from amibuild import proc
from amibuild.aws.session import Cloud
from amibuild.library.load import bundled_provisioners
from amibuild.project import load_project
from amibuild.verify.disk import hygiene_limit_s, known_public
from amibuild.verify.known import KNOWN_FILE, KnownValues, fingerprint_file
from tests.unit.samples import build_step

PROGRAM = bundled_provisioners() / "seal/hygiene.py"
SECRET = "nU7-value.of_the+bake/4qZ"
CHUNK = 4 * 1024 * 1024
KEY = """\
-----BEGIN {label}-----
{body}
-----END {label}-----
"""


@dataclass
class Disk:
    """A file with an ext4 on it, and what a look at it says."""

    path: Path
    folder: Path

    def debugfs(self, *requests: str) -> str:
        (self.folder / "requests").write_text("\n".join(requests))
        return proc.run(["debugfs", "-w", "-f", self.folder / "requests", self.path]).text

    def hold(self, path: str, content: bytes) -> None:
        (self.folder / "content").write_bytes(content)
        self.debugfs(f"write {self.folder}/content {path}")

    def place_of(self, content: bytes) -> int:
        return self.path.read_bytes().index(content)

    def look(
        self, *values: str, public: tuple[str, ...] = (), known: KnownValues | None = None
    ) -> dict[str, Any]:
        known = known or KnownValues()
        for number, value in enumerate(values):
            known.add(f"value {number}", value)
        file = self.folder / KNOWN_FILE
        file.write_bytes(known.fingerprints().content)
        root = self.folder / "root"
        root.mkdir(exist_ok=True)
        done = proc.run([sys.executable, PROGRAM, root, self.path, self.path, file, *public])
        found: dict[str, Any] = json.loads(done.text)
        return found

    def finds(
        self, *values: str, public: tuple[str, ...] = (), known: KnownValues | None = None
    ) -> list[tuple[str, str, str]]:
        failed = self.look(*values, public=public, known=known)["failed"]
        return [(f["rule"], f["path"], f["detail"]) for f in failed if " block" in f["rule"]]


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(24 * 1024 * 1024)
    proc.run(["mke2fs", "-q", "-t", "ext4", "-F", path])
    return Disk(path, tmp_path)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """By kind, as programs make them."""
    folder = tmp_path_factory.mktemp("keys")
    proc.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "openssh"])
    proc.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", folder / "pkcs8"])
    proc.run(["openssl", "genrsa", "-traditional", "-out", folder / "rsa", "2048"])
    proc.run(["openssl", "genrsa", "-aes128", "-passout", "pass:x", "-out", folder / "locked"])
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix != ".pub"}


def test_a_clean_disk_passes(disk: Disk) -> None:
    disk.hold("manual", b"Begins with -----BEGIN PRIVATE KEY----- and X-Amz-Signature=HEX.")
    assert disk.finds(SECRET) == []
    assert [rule for rule in disk.look(SECRET)["passed"] if " block" in rule] == [
        "no private key in any block",
        "no credentials in any block",
        "no known secret in any block",
    ]


@pytest.mark.parametrize("kind", ["openssh", "pkcs8", "rsa", "locked"])
def test_a_private_key_is_found_with_its_path_and_place(
    disk: Disk, keys: dict[str, bytes], kind: str
) -> None:
    disk.debugfs("mkdir srv")
    disk.hold("srv/left-behind", b"x" * 5000 + b"\n" + keys[kind])
    (find,) = disk.finds()
    assert find[:2] == ("no private key in any block", "/srv/left-behind")
    said = f"private key, at byte {disk.place_of(b'-----BEGIN ')} of the disk; if everybody has"
    assert said in find[2]


def test_a_key_inside_of_json_is_one(disk: Disk, keys: dict[str, bytes]) -> None:
    disk.hold("state.json", json.dumps({"key": keys["openssh"].decode()}).encode())
    assert [find[1] for find in disk.finds()] == ["/state.json"]


@pytest.mark.parametrize(
    ("label", "body"),
    [
        ("PRIVATE KEY", "..."),
        ("RSA PRIVATE KEY", "MIIEpAIBAAKCAQEA"),
        ("OPENSSH PRIVATE KEY", "A" * 64),
        ("EC PRIVATE KEY", "YOUR KEY HERE " * 8),
        ("PUBLIC KEY", "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="),
        ("CERTIFICATE", "MIIBszCCAVmgAwIBAgIUY2ZkMWVhYzk0YjFlYzQ5ZjE4ZDEwCgYIKoZIzj0EAwIw"),
    ],
)
def test_what_only_looks_like_a_key_is_none(disk: Disk, label: str, body: str) -> None:
    disk.hold("manual", KEY.format(label=label, body=body).encode())
    assert disk.finds() == []


def test_a_known_value_is_found_by_its_name_and_never_told(disk: Disk) -> None:
    disk.hold("settings", f"token = {SECRET}\n".encode())
    (find,) = disk.finds("another-value-of-the-bake", SECRET)
    assert find == (
        "no known secret in any block",
        "/settings",
        f"holds value 1, at byte {disk.place_of(SECRET.encode())} of the disk",
    )
    assert SECRET not in json.dumps(disk.look(SECRET))


def test_a_value_in_a_deleted_files_block_is_found_in_no_file(disk: Disk) -> None:
    disk.hold("gone", SECRET.encode())
    disk.debugfs("rm gone")
    (find,) = disk.finds(SECRET)
    assert find[1] == "in no file (of a deleted one, or never used)"


def test_a_value_outside_of_every_file_system_is_found(disk: Disk) -> None:
    with disk.path.open("r+b") as file:
        file.seek(0, 2)
        file.write(bytes(512) + SECRET.encode())
    assert [find[0] for find in disk.finds(SECRET)] == ["no known secret in any block"]


@pytest.mark.parametrize("before", range(0, len(SECRET) + 1, 5))
def test_a_value_across_two_reads_is_found_once(disk: Disk, before: int) -> None:
    with disk.path.open("r+b") as file:
        file.seek(5 * CHUNK - before)
        file.write(SECRET.encode())
    assert len(disk.finds(SECRET)) == 1


def test_a_part_of_a_value_is_none(disk: Disk) -> None:
    disk.hold("settings", SECRET[:-1].encode() + b"\n")
    assert disk.finds(SECRET) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("https://b.s3.amazonaws.com/k?X-Amz-Signature=" + "0123456789abcdef" * 4, True),
        ("https://b.s3.amazonaws.com/k?X-Amz-Signature=HEX", False),
        ("AWS_SECRET_ACCESS_KEY=aB3dE6gH9jKlMnOpQrStUvWxYz0123456789+/ab\n", True),
        ('export AWS_SECRET_ACCESS_KEY="aB3dE6gH9jKlMnOpQrStUvWxYz0123456789+/ab"\n', True),
        ('["AWS_SECRET_ACCESS_KEY=aB3dE6gH9jKlMnOpQrStUvWxYz0123456789+/ab"]', True),
        ("<SecretAccessKey>aB3dE6gH9jKlMnOpQrStUvWxYz0123456789+/ab</SecretAccessKey>", True),
        ("<SecretAccessKey>\n  aB3dE6gH9jKlMnOpQrStUvWxYz0123456789+/ab\n", True),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n", False),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYexamplekey\n", False),
        ("AWS_SECRET_ACCESS_KEY=$AWS_SECRET_ACCESS_KEY_OF_THE_ACCOUNT_THAT_HAS_IT\n", False),
        ("AWS_SECRET_ACCESS_KEY=...\n", False),
        ("AWS_SECRET_ACCESS_KEY=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n", False),
        ("<SecretAccessKey>wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY</SecretAccessKey>", False),
        ("<SecretAccessKey>...</SecretAccessKey>", False),
        ("</SecretAccessKey><SessionToken>aB3dE6gH9jKlMnOpQrStUvWxYz0123456789+/ab", False),
        ('"SecretAccessKey" : "aB3dE6gH9jKlMnOpQrStUvWxYz0123456789+/ab"', True),
        ("aws_secret_access_key = aB3dE6gH9jKlMnOpQrStUvWxYz0123456789+/ab\n", True),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n", False),
        ("fields['SecretAccessKey'] = value", False),
    ],
)
def test_a_credential_is_found_by_what_stands_behind_its_name(
    disk: Disk, text: str, found: bool
) -> None:
    disk.hold("notes", text.encode())
    assert [find[:2] for find in disk.finds()] == [
        ("no credentials in any block", "/notes") for _ in range(found)
    ]


def test_a_key_that_a_package_brings_is_no_secret_until_somebody_changes_it(
    disk: Disk, keys: dict[str, bytes]
) -> None:
    disk.debugfs("mkdir doc")
    disk.hold("doc/example.pem", keys["rsa"])
    root = disk.folder / "root"
    (root / "doc").mkdir(parents=True)
    (root / "doc/example.pem").write_bytes(keys["rsa"])
    sums = root / "var/lib/dpkg/info/example.md5sums"
    sums.parent.mkdir(parents=True)
    sums.write_text(f"{hashlib.md5(keys['rsa']).hexdigest()}  doc/example.pem\n")
    assert disk.finds() == []
    (root / "doc/example.pem").write_bytes(keys["rsa"] + b"\n")
    assert [find[1] for find in disk.finds()] == ["/doc/example.pem"]


@pytest.mark.parametrize(
    ("public", "found"),
    [
        ("/opt/game/tests", False),
        ("/opt/game/tests/", False),
        ("/opt/game/tests/key.pem", False),
        ("/opt/game/test", True),
        ("opt/game/tests", True),
        ("/", True),
    ],
)
def test_a_key_that_the_recipe_calls_public_is_no_secret_in_its_folder(
    disk: Disk, keys: dict[str, bytes], public: str, found: bool
) -> None:
    disk.debugfs("mkdir opt", "mkdir opt/game", "mkdir opt/game/tests")
    disk.hold("opt/game/tests/key.pem", keys["rsa"])
    there, nothing = ["/opt/game/tests/key.pem"], list[str]()
    seen = disk.look(public=("/srv", public))
    failed = [find["path"] for find in seen["failed"] if " block" in find["rule"]]
    waived = [find["path"] for find in seen["waived"]]
    assert (failed, waived) == ((there, nothing) if found else (nothing, there))


def test_a_key_that_is_waived_is_told_with_its_place_and_fails_no_rule(
    disk: Disk, keys: dict[str, bytes]
) -> None:
    disk.hold("key.pem", keys["rsa"])
    seen = disk.look(public=("/key.pem",))
    at = disk.place_of(b"-----BEGIN ")
    rule, said = "no private key in any block", "is a rsa private key"
    assert seen["waived"] == [
        {"rule": rule, "path": "/key.pem", "detail": f"{said}, at byte {at} of the disk"}
    ]
    assert rule in seen["passed"]
    disk.hold("other.pem", keys["pkcs8"])
    seen = disk.look(public=("/key.pem",))
    assert rule not in seen["passed"], "one that is waived excuses no other"
    assert [find["path"] for find in seen["waived"]] == ["/key.pem"]


def test_nothing_else_is_public_by_the_recipes_word(disk: Disk) -> None:
    secret_key = "aws_secret_access_key = aB3dE6gH9jKlMnOpQrStUvWxYz0123456789+/ab"
    disk.hold("notes", f"{SECRET} {secret_key}\n".encode())
    assert len(disk.finds(SECRET, public=("/",))) == 2


def test_the_recipes_word_is_the_parameter_of_seal(tmp_path: Path) -> None:
    recipe = tmp_path / "amibuild.toml"
    recipe.write_text(
        '[image]\nname = "game-host"\n[provision]\nsteps = []\nservices = []\n'
        '[provision.params.seal]\nknown_public = ["/opt/a", "/opt/b c"]\n'
    )
    assert known_public(load_project(recipe).steps) == ("/opt/a", "/opt/b c")
    assert known_public([build_step("seal"), build_step("os")]) == ()


def test_keys_that_have_rotated_are_looked_for_as_they_stand_in_addresses(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, addresses = KnownValues(), []
    for number in ("1", "2"):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"ASIA{number * 16}")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{number}-secret-access-key")
        monkeypatch.setenv("AWS_SESSION_TOKEN", f"{number}+session/token==")
        cloud = Cloud(region="us-east-1")
        addresses.append(cloud.s3.presigned_get("bucket", "key", valid_s=60))
        known.add_those_of(cloud)
    disk.hold("raw", b"1+session/token==\n1-secret-access-key\n")
    disk.hold("log", addresses[0].partition("X-Amz-Signature")[0].encode())
    assert {(path, said.partition(",")[0]) for _, path, said in disk.finds(known=known)} == {
        ("/raw", "holds the session token of who baked"),
        ("/raw", "holds the secret access key of who baked"),
        ("/log", "holds the session token of who baked"),
    }
    disk.hold("second", addresses[1].encode())
    said = [said for _, path, said in disk.finds(known=known) if path == "/second"]
    assert any("holds the signature of the address of /key" in one for one in said)
    assert any("token of who baked, percent-encoded" in one for one in said)


def test_a_read_that_ends_early_is_no_clean_disk(disk: Disk) -> None:
    """As at a bad sector: the end is where it was, and the file is shorter."""
    reading = runpy.run_path(str(PROGRAM.with_name("reading.py")))
    whole = reading["Disk"](str(disk.path), [])
    os.truncate(disk.path, 5 * CHUNK)
    list(whole.written(3))
    with pytest.raises(OSError, match=f"byte {4 * CHUNK - 64 * 1024} of the disk: "):
        list(whole.written(4))


def test_what_can_not_be_read_fails_the_look(disk: Disk) -> None:
    broken = disk.folder / "seal"
    shutil.copytree(PROGRAM.parent, broken)
    text = (broken / "reading.py").read_text()
    (broken / "reading.py").write_text(text.replace("got != wanted", "at"))
    known = disk.folder / KNOWN_FILE
    known.write_bytes(KnownValues().fingerprints().content)
    parts = (broken / "hygiene.py", disk.folder, disk.path, disk.path, known)
    done = proc.run([sys.executable, *parts], check=False)
    assert done.exit_code == 1
    assert b"could be read" in done.stderr


def test_only_an_emulated_machine_takes_samples(disk: Disk) -> None:
    reading = runpy.run_path(str(PROGRAM.with_name("reading.py")))
    with disk.path.open("r+b") as file:
        file.seek(5 * CHUNK + 8 * 1024)
        file.write(SECRET.encode())
    everything = [(0, disk.path.stat().st_size)]
    assert list(reading["Disk"](str(disk.path), everything).written(5)) == []
    assert len(list(reading["Disk"](str(disk.path), []).written(5))) == 1


@pytest.mark.parametrize(
    ("offset", "said"),
    [
        (2048 * 512, "in another partition (vda15)"),
        (4095 * 512 + 511, "in another partition (vda15)"),
        (4096 * 512, "in no partition"),
    ],
)
def test_what_is_outside_of_the_root_file_system_is_in_another_partition(
    tmp_path: Path, offset: int, said: str
) -> None:
    """By a folder as /sys has it."""
    for name, begin, size in (("vda15", 2048, 2048), ("vda1", 8192, 9000)):
        (tmp_path / name).mkdir()
        for file, text in (("partition", name[3:]), ("start", begin), ("size", size)):
            (tmp_path / name / file).write_text(f"{text}\n")
    beside = runpy.run_path(str(PROGRAM.with_name("paths.py")))["beside"]
    assert beside(tmp_path, offset) == said
    assert beside(tmp_path / "vda1", offset) == "in another partition, or in none"


def test_what_is_behind_the_root_file_system_is_in_none_of_its_files(disk: Disk) -> None:
    whole = disk.folder / "whole.raw"
    whole.write_bytes(disk.path.read_bytes() + bytes(512))
    paths = runpy.run_path(str(PROGRAM.with_name("paths.py")))["Paths"](whole, disk.path)
    size = disk.path.stat().st_size
    assert paths.of(size - 1).path == "in no file (of a deleted one, or never used)"
    assert paths.of(size).path == "in another partition, or in none"


@pytest.mark.parametrize(("size_gib", "limit_s"), [(8, 1080), (40, 3000)])
def test_a_larger_disk_has_more_time(size_gib: int, limit_s: int) -> None:
    assert hygiene_limit_s(size_gib) == limit_s


def test_what_is_compressed_is_not_found(disk: Disk) -> None:
    """Said where it is documented; when this fails the sentence there is out of date."""
    disk.hold("notes.gz", gzip.compress(f"{SECRET * 3}\n".encode()))
    assert disk.finds(SECRET) == []


def test_no_value_and_nothing_that_tells_it_travels() -> None:
    file = fingerprint_file({SECRET: "the token"}, key=bytes(32))
    assert SECRET.encode() not in file.content
    (value,) = json.loads(file.content)["values"]
    assert sorted(value) == ["anchor", "at", "length", "mac", "name"]
    assert KnownValues().fingerprints().content != KnownValues().fingerprints().content


@pytest.mark.parametrize("value", ["short", "x" * 15, "y" * (16 * 1024 + 1)])
def test_a_value_that_can_not_be_looked_for_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="can't be looked for"):
        KnownValues().add("it", value)
