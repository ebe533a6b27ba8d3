"""What cloud-init is told at a machine's first boot: a NoCloud seed.

Source: cloud-init's documentation of the NoCloud datasource (files meta-data, user-data,
network-config; a file system labelled CIDATA).
"""

from __future__ import annotations

import json
from pathlib import Path

from amibuild import proc
from amibuild.local.machines.base import MachineSpec

LABEL = "CIDATA"
_SLACK = 512 * 1024
# mkfs.vfat makes nothing that Linux mounts below about 36 KiB; 1 MiB is cheap, since sparse.
_SMALLEST = 1 << 20


def seed_files(spec: MachineSpec) -> dict[str, bytes]:
    """The files by name. JSON is YAML, and quotes itself."""
    metadata: dict[str, object] = {
        "instance-id": spec.instance_id,
        "local-hostname": spec.hostname,
    }
    if spec.public_key:
        metadata["public-keys"] = [spec.public_key.strip()]
    return {
        "meta-data": json.dumps(metadata, indent=1).encode() + b"\n",
        # Else cloud-init writes a network configuration onto the disk, and waits for the network.
        "network-config": b"config: disabled\n",
        # An empty file is a valid seed; NoCloud ignores a seed without one.
        "user-data": spec.user_data or b"",
    }


def write_seed_folder(spec: MachineSpec, folder: Path) -> None:
    """For nspawn, which binds it below /run. User-data may hold secrets: for the owner only."""
    folder.mkdir(mode=0o700)
    for name, content in seed_files(spec).items():
        path = folder / name
        path.touch(mode=0o600)
        path.write_bytes(content)


def write_seed_drive(spec: MachineSpec, drive: Path) -> None:
    """For QEMU: a FAT file system that cloud-init finds by its label. Needs no root."""
    folder = drive.with_suffix(".files")
    write_seed_folder(spec, folder)
    size = sum(len(content) for content in seed_files(spec).values()) + _SLACK
    drive.touch(mode=0o600)
    with drive.open("r+b") as file:
        file.truncate(max(size // 512 * 512, _SMALLEST))
    proc.run(["mkfs.vfat", "-n", LABEL, drive])
    proc.run(["mcopy", "-i", drive, *sorted(folder.iterdir()), "::/"])
