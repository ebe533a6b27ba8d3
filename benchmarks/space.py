"""What ten descendants of one image take on the disk, which share what they have in common.

    python -m benchmarks.space [COUNT]

Twice, since a boot has a noise of its own: each adds 1 MB to the image's disk without booting it,
then each boots it as an nspawn machine, adds 1 MB, is stopped and captured, nothing cleaned. Needs
root. It works in a data folder of its own, with the base image that this user's has.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amibuild.endpoint import data_dir, open_endpoint
from amibuild.local import disk, private
from amibuild.local.base import ensure_base
from amibuild.local.blocks import SIZE, BlockList
from amibuild.local.store import Store
from amibuild.wait import Look, until
from benchmarks.instances import ask, client, launch

ADDED = 1_000_000
PATIENCE_S = 300.0
MIB = 1 << 20
HEAD = "| images | one | all | each more | all / one (must: < 1.5) |\n|---|---|---|---|---|"


@dataclass(frozen=True)
class Space:
    """Bytes: the first image's, and all images' together. `each` is what one more adds."""

    what: str
    one: int
    all: int
    count: int

    @property
    def each(self) -> float:
        return (self.all - self.one) / (self.count - 1)

    @property
    def share(self) -> float:
        return self.all / self.one

    def row(self) -> str:
        return (
            f"| {self.what} | {self.one / MIB:.0f} MiB | {self.count}: {self.all / MIB:.0f} MiB "
            f"| {self.each / MIB:.1f} MiB | {self.share:.2f} |"
        )


def add_to(raw: Path) -> None:
    """Mounts the root file system, and writes 1 MB that is in no other image."""
    root = disk.root_partition(raw)
    options = f"loop,offset={root.offset},sizelimit={root.size}"
    script = (
        'mount -t ext4 -o "$1" -- "$2" "$3"; '
        'head -c "$4" /dev/urandom >"$3/root/added"; umount -- "$3"'
    )
    with tempfile.TemporaryDirectory(prefix="amibuild-bench-") as point:
        private.run(["sh", "-euc", script, "sh", options, raw, point, str(ADDED)])


def unbooted(folder: Path, base: Path, count: int) -> Space:
    """Descendants of the base image, in a store of its own."""
    ids = [f"snap-{number:017x}" for number in range(1, count + 1)]
    with Store.open(folder / "store") as store:
        image = ensure_base(store, base, progress=tell)
        assert image.snapshot_id is not None
        for snapshot_id in ids:
            raw = folder / "descendant.raw"
            store.materialise(image.snapshot_id, raw, size_gib=image.volume_size_gib)
            add_to(raw)
            disk.trim(raw)
            store.capture(raw, snapshot_id, volume_size_gib=image.volume_size_gib, owner="bench")
            raw.unlink()
    return space("1 MB added without a boot", folder / "store", ids)


def booted(folder: Path, base: Path, count: int) -> Space:
    """The same by any EC2 client's calls: launch, one command, stop, CreateImage."""
    local = folder / "data" / "local"
    local.mkdir(parents=True)
    (local / "base").symlink_to(base)
    with open_endpoint(machine="nspawn", data=folder / "data", progress=tell) as endpoint:
        ids, ec2 = launch(endpoint, count), client("ec2", endpoint)
        ask(endpoint, ids, f"head -c {ADDED} /dev/urandom >/root/added")
        ec2.stop_instances(InstanceIds=ids)
        await_state(lambda: {i["State"]["Name"] for i in instances(ec2)}, "stopped")
        made = [
            ec2.create_image(InstanceId=id_, Name=f"descendant-{secrets.token_hex(4)}")["ImageId"]
            for id_ in ids
        ]

        def images() -> list[dict[str, Any]]:
            return list(ec2.describe_images(ImageIds=made)["Images"])

        await_state(lambda: {image["State"] for image in images()}, "available")
        mappings = [image["BlockDeviceMappings"][0]["Ebs"] for image in images()]
    captured = [mapping["SnapshotId"] for mapping in mappings]
    return space("1 MB added, booted in between", local / "store", captured)


def instances(ec2: Any) -> list[dict[str, Any]]:
    found = ec2.describe_instances()["Reservations"]
    return [one for reservation in found for one in reservation["Instances"]]


def await_state(seen: Callable[[], set[str]], wanted: str) -> None:
    def look() -> Look[bool]:
        states = seen()
        return Look(" ".join(states), states == {wanted} or None)

    until(look, what=wanted, timeout_s=PATIENCE_S)


def space(what: str, store: Path, snapshot_ids: list[str]) -> Space:
    """From their lists of blocks: those in several are on the disk once."""
    lists = [
        BlockList.unpack((store / "snapshots" / f"{id_}.blocks").read_bytes())
        for id_ in snapshot_ids
    ]
    named = [{digest for _, digest in blocks.entries} for blocks in lists]
    return Space(what, len(named[0]) * SIZE, len(set().union(*named)) * SIZE, len(named))


def tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def measure(count: int) -> list[Space]:
    if os.geteuid() != 0:
        raise SystemExit("mounts and nspawn machines need root")
    base = (data_dir() / "local" / "base").resolve()
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="amibuild-bench-") as name:
        return [unbooted(Path(name), base, count), booted(Path(name), base, count)]


def main() -> None:
    rows = [s.row() for s in measure(int(sys.argv[1]) if len(sys.argv) > 1 else 10)]
    sys.stdout.write(f"{HEAD}\n" + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
