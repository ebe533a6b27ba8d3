"""What cloud-init is told: the files of a seed, in a folder and on a drive."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.local.machines.base import MachineSpec
from amibuild.local.machines.seed import seed_files, write_seed_drive, write_seed_folder

SPEC = MachineSpec(
    instance_id="i-0123456789abcdef0",
    disk=Path("disk.raw"),
    run_dir=Path("run"),
    hostname="ip-10-213-0-2",
    public_key="ssh-ed25519 AAAA somebody's key\n",
    user_data=b"#!/bin/sh\nexit 0\n",
    network_index=0,
    cpus=2,
    memory_mib=1024,
    endpoint_port=4566,
)


def test_the_metadata_names_instance_host_and_key() -> None:
    metadata = json.loads(seed_files(SPEC)["meta-data"])
    assert metadata == {
        "instance-id": "i-0123456789abcdef0",
        "local-hostname": "ip-10-213-0-2",
        "public-keys": ["ssh-ed25519 AAAA somebody's key"],
    }


def test_a_machine_without_a_key_gets_none() -> None:
    assert "public-keys" not in json.loads(seed_files(replace(SPEC, public_key=None))["meta-data"])


@pytest.mark.parametrize("user_data", [b"\x1f\x8b\x08 gzip stays gzip \xff", b"", None])
def test_user_data_arrives_byte_by_byte(user_data: bytes | None) -> None:
    assert seed_files(replace(SPEC, user_data=user_data))["user-data"] == (user_data or b"")


def test_the_folder_is_for_its_owner_only(tmp_path: Path) -> None:
    write_seed_folder(SPEC, tmp_path / "seed")
    assert (tmp_path / "seed").stat().st_mode & 0o777 == 0o700
    for name in ("meta-data", "user-data", "network-config"):
        assert (tmp_path / "seed" / name).stat().st_mode & 0o777 == 0o600


def test_the_drive_carries_the_label_and_the_files(tmp_path: Path) -> None:
    drive = tmp_path / "seed.img"
    large = replace(SPEC, user_data=bytes(range(256)) * 8000)  # 2 MB: more than the least size
    write_seed_drive(large, drive)
    assert drive.stat().st_mode & 0o777 == 0o600
    assert "CIDATA" in proc.run(["mlabel", "-s", "-i", drive, "::"]).text
    read = proc.run(["mtype", "-i", drive, "::/user-data"]).stdout
    assert read == large.user_data
