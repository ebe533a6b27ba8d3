"""RUNBOOK.md is true: its commands, pasted on the source image, give the same disk as the bake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from amibuild.aws.removal import CloudRemover
from amibuild.aws.session import Cloud
from amibuild.communicator.base import RemoteJob, check
from amibuild.communicator.ssm import SsmCommunicator
from amibuild.endpoint import open_endpoint
from amibuild.journal import Journal
from amibuild.local import disk
from amibuild.local.store import Store
from amibuild.names import Tag, expiry, new_bake_id
from amibuild.outputs.runbook import extract_commands
from amibuild.scope import Scope
from amibuild.steps.access import make_access
from amibuild.steps.capture import capture, wait_until_available
from amibuild.steps.connect import wait_for_agent, wait_for_first_boot
from amibuild.steps.launch import Launch, Purpose, launch, wait_until_stopped
from amibuild.wait import silent
from tests.local.host import left_on_host
from tests.local.scenario import Called

pytestmark = pytest.mark.machine

# What differs between two bakes by nature: caches and databases that hold times.
VOLATILE = (
    "var/cache/",
    "var/lib/apt/",
    "var/lib/dpkg/info/",  # lists are equal; the triggers' leftovers are ordered by time
    "var/lib/systemd/catalog/",
    "var/log/",
    "boot/initrd.img",
    "etc/ld.so.cache",
)
LISTING = """
import hashlib, json, os, stat, sys
root = sys.argv[1]
found = {}
for folder, _, names in os.walk(root):
    for name in names:
        path = os.path.join(folder, name)
        facts = os.lstat(path)
        if stat.S_ISLNK(facts.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(facts.st_mode):
            content = hashlib.sha256(open(path, "rb").read()).hexdigest()
        else:
            content = ""
        where = os.path.relpath(path, root)
        found[where] = [oct(facts.st_mode), facts.st_uid, facts.st_gid, content]
json.dump(found, sys.stdout)
"""


def replay(cloud: Cloud, manifest: dict[str, object], runbook: str, folder: Path) -> str:
    """The snapshot of a source machine on which the runbook's commands were pasted."""
    run_id = new_bake_id()
    source = manifest["source"]
    assert isinstance(source, dict)
    tags = {Tag.BAKE_ID: str(run_id), Tag.EXPIRES: expiry(datetime.now(UTC), timedelta(hours=1))}
    with (
        Journal(folder / "journal.jsonl") as journal,
        Scope(journal, CloudRemover(cloud), bake_id=run_id, region=cloud.region) as scope,
    ):
        networks = cloud.ec2.networks(None)
        group = make_access(cloud, scope, networks[0].vpc_id, run_id, tags, silent)
        wanted = Launch(
            purpose=Purpose.BUILD,
            image_id=source["ami_id"],
            root_device="/dev/xvda",
            volume_gib=8,
            instance_types=["c7i.large"],
            networks=networks,
            security_group_id=group,
            instance_profile=None,
            kms_key=None,
            public_ip=None,
            user_data=None,
            tags=tags,
            timeout_s=300,
        )
        machine = launch(cloud, scope, run_id, wanted, silent).id
        wait_for_agent(cloud, machine, timeout_s=300, observer=silent)
        communicator = SsmCommunicator(cloud.ssm, machine)
        wait_for_first_boot(communicator, timedelta(hours=1), silent)
        pasted = RemoteJob("pasted", extract_commands(runbook), timeout_s=900)
        check("the runbook", communicator.run(pasted, silent))
        cloud.ec2.stop_instance(machine)
        wait_until_stopped(cloud, machine, timeout_s=120, observer=silent)
        captured = capture(cloud, scope, machine, "replayed", "", tags)
        image = wait_until_available(cloud, captured.image_id, timeout_s=300, observer=silent)
        scope.keep(image.id, "compared below")
        return image.id


def files_of(store: Store, snapshot_id: str, folder: Path) -> dict[str, list[object]]:
    raw, at = folder / f"{snapshot_id}.raw", folder / snapshot_id
    at.mkdir()
    store.materialise(snapshot_id, raw, size_gib=8)
    listed = disk.on_root(raw, at, ["python3", "-c", LISTING, at])
    raw.unlink()
    loaded: dict[str, list[object]] = json.loads(listed.text)
    return loaded


@pytest.fixture
def work(tmp_path: Path, data_dir: Path) -> Iterator[Path]:
    yield tmp_path
    assert left_on_host() == {}


def test_pasting_the_runbook_gives_the_same_packages_users_units_and_files(
    work: Path, data_dir: Path, baked: Called
) -> None:
    manifest = json.loads(Path(baked.json["manifest"]).read_text())
    runbook = Path(baked.json["runbook"]).read_text()
    with open_endpoint(machine="auto", progress=lambda _: None) as access:
        cloud = Cloud(region="us-east-1", access=access)
        replayed = cloud.images.image(replay(cloud, manifest, runbook, work)).snapshots[0]
    store = Store.open(data_dir / "local/store")
    try:
        by_bake = files_of(store, manifest["image"]["snapshot_ids"][0], work)
        by_hand = files_of(store, replayed, work)
    finally:
        store.close()
    different = [
        path
        for path in sorted(by_bake.keys() | by_hand.keys())
        if by_bake.get(path) != by_hand.get(path) and not path.startswith(VOLATILE)
    ]
    assert different == []
    assert len(by_bake) > 10_000
