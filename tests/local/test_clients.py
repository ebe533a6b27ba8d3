"""EC2's usual clients do their usual work on real machines, all of them at once.

The AWS CLI, Packer and Terraform run beside each other and beside boto3's waiters: nearly all of
their time is the pause between two looks at a state that was reached long before.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from amibuild.wait import Look, until
from tests.local.clients import (
    MIRRORS,
    PREFIX,
    SCRIPTS,
    AtWork,
    Done,
    Here,
    need,
    program,
    snapshot_of,
    tags_of,
    terraform_mirror,
)
from tests.local.host import left_on_host
from tests.local.scenario import amibuild

pytestmark = pytest.mark.machine


@pytest.fixture(scope="module")
def at_work(here: Here) -> Iterator[dict[str, AtWork]]:
    """The clients that are installed, each busy from here on. Their machines are nspawn's."""
    clients: dict[str, AtWork] = {}
    try:
        for name in ("aws", "packer"):
            if program(name) is None:
                clients[name] = begin(here, name, {})
        if program("terraform") is None and terraform_mirror() is not None:
            own_image(here, f"{PREFIX}terraform")
            clients["terraform"] = begin(here, "terraform", terraform_variables(here))
        yield clients
    finally:
        for client in clients.values():
            client.end()


def begin(here: Here, name: str, environment: dict[str, str]) -> AtWork:
    folder = here.folder / name
    folder.mkdir(exist_ok=True)
    for file in SCRIPTS.glob("packer.json" if name == "packer" else "*.tf"):
        shutil.copy(file, folder)
    (folder / "uploaded").write_text("by-file\n")
    given = {**here.environment, "IMAGE_NAME": f"{PREFIX}{name}", **environment}
    return AtWork(f"{name}.sh", folder, given)


def terraform_variables(here: Here) -> dict[str, str]:
    folder = here.folder / "terraform"
    folder.mkdir()
    mirror = json.dumps(str(terraform_mirror()))
    config = f"provider_installation {{\n  filesystem_mirror {{\n    path = {mirror}\n  }}\n}}\n"
    (folder / "config.tfrc").write_text(config)
    key = here.ec2.create_key_pair(KeyName=f"{PREFIX}made", KeyType="ed25519")
    public = here.ec2.describe_key_pairs(KeyNames=[key["KeyName"]], IncludePublicKey=True)
    here.ec2.delete_key_pair(KeyName=key["KeyName"])
    return {
        "TF_CLI_CONFIG_FILE": str(folder / "config.tfrc"),
        "TF_VAR_image_name": f"{PREFIX}terraform",
        "TF_VAR_public_key": public["KeyPairs"][0]["PublicKey"],
    }


def own_image(here: Here, name: str) -> None:
    """Quickly: what Terraform finds with `owners = ["self"]`."""
    instance = here.launch()
    wait_for(lambda: here.state(instance), "running")
    specification = [{"ResourceType": "image", "Tags": [{"Key": "made-by", "Value": "boto3"}]}]
    here.ec2.create_image(
        InstanceId=instance,
        Name=name,
        TagSpecifications=specification,
    )
    wait_for(lambda: str(here.image(name)["State"]), "available")
    here.ec2.terminate_instances(InstanceIds=[instance])


def wait_for(see: Any, wanted: str) -> None:
    def look() -> Look[bool]:
        seen = see()
        return Look(seen, True if seen == wanted else None)

    until(look, what=wanted, timeout_s=120)


def test_every_stock_waiter_of_boto3_comes_to_its_end(
    here: Here, at_work: dict[str, AtWork]
) -> None:
    ec2, ssm = here.ec2, here.ssm
    instance = here.launch()
    one = {"InstanceIds": [instance]}
    for state in ("instance_exists", "instance_running", "instance_status_ok", "system_status_ok"):
        ec2.get_waiter(state).wait(**one)
    sent = ssm.send_command(
        **one,
        DocumentName="AWS-RunShellScript",
        Parameters={"commands": ["exit 0"]},
    )["Command"]["CommandId"]
    ssm.get_waiter("command_executed").wait(CommandId=sent, InstanceId=instance)
    ec2.stop_instances(**one)
    ec2.get_waiter("instance_stopped").wait(**one)
    assert here.state(instance) == "stopped"
    image = ec2.create_image(InstanceId=instance, Name=f"{PREFIX}waiters")["ImageId"]
    ec2.get_waiter("image_exists").wait(ImageIds=[image])
    ec2.get_waiter("image_available").wait(ImageIds=[image])
    snapshot = snapshot_of(here.image(f"{PREFIX}waiters"))
    ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot])
    volume = ec2.create_volume(AvailabilityZone="us-east-1a", SnapshotId=snapshot)["VolumeId"]
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume])
    ec2.delete_volume(VolumeId=volume)
    ec2.get_waiter("volume_deleted").wait(VolumeIds=[volume])
    ec2.terminate_instances(**one)
    ec2.get_waiter("instance_terminated").wait(**one)
    assert here.state(instance) == "terminated"


def finished(at_work: dict[str, AtWork], client: str) -> Done:
    done = at_work[client].done()
    assert done.exit_code == 0, done.said
    return done


def test_the_aws_cli_goes_through_its_usual_work(at_work: dict[str, AtWork]) -> None:
    need("aws", program("aws"))
    said = finished(at_work, "aws").said.splitlines()
    assert "from-user-data" in said
    assert "Success\t0\tfrom-run-command" in said
    assert any(line.startswith("completed\t2") for line in said)


@pytest.fixture(scope="module")
def packed(here: Here, at_work: dict[str, AtWork]) -> dict[str, Any]:
    """The image that Packer made, as EC2 describes it."""
    need("packer", program("packer"))
    said = finished(at_work, "packer").said
    assert "==> amazon-ebs: Connected to SSH!" in said
    assert "    amazon-ebs: admin" in said.splitlines()
    return here.image(f"{PREFIX}packer")


def test_packers_image_and_snapshot_have_its_tags(here: Here, packed: dict[str, Any]) -> None:
    tags = tags_of(packed)
    assert tags["made-by"] == "packer"
    assert tags["source"].startswith("debian-13-amd64-")
    (snapshot,) = here.ec2.describe_snapshots(SnapshotIds=[snapshot_of(packed)])["Snapshots"]
    assert tags_of(dict(snapshot))["made-by"] == "packer"


def test_packer_leaves_no_builder_key_or_group(here: Here, packed: dict[str, Any]) -> None:
    asked = [{"Name": "tag:Name", "Values": ["Packer Builder"]}]
    found = here.ec2.describe_instances(Filters=asked)["Reservations"]
    assert {i["State"]["Name"] for r in found for i in r["Instances"]} <= {"terminated"}
    keys = [pair["KeyName"] for pair in here.ec2.describe_key_pairs()["KeyPairs"]]
    groups = [g["GroupName"] for g in here.ec2.describe_security_groups()["SecurityGroups"]]
    assert [name for name in (*keys, *groups) if name.startswith("packer")] == []


def test_what_packers_provisioners_did_is_in_a_fresh_machine(
    here: Here, packed: dict[str, Any]
) -> None:
    instance = here.launch(packed["ImageId"])
    try:
        made = here.shell(instance, "cat", "/etc/packer-shell", "/etc/packer-file")
        assert made.splitlines() == ["by-shell", "by-file"]
    finally:
        here.ec2.terminate_instances(InstanceIds=[instance])


def test_terraform_makes_changes_and_destroys(here: Here, at_work: dict[str, AtWork]) -> None:
    mirror = None if terraform_mirror() else f"its AWS provider is in none of {MIRRORS}"
    need("terraform", program("terraform") or mirror)
    done = finished(at_work, "terraform")
    assert "from-terraform" in done.said.splitlines()
    assert done.said.count("No changes. Your infrastructure matches the configuration.") == 2
    assert "0 added, 1 changed, 0 destroyed" in done.said
    assert "Destroy complete! Resources: 5 destroyed." in done.said
    image = here.image(f"{PREFIX}terraform")["ImageId"]
    assert f'channel = "{image}"' in done.said.splitlines()


def test_nothing_of_all_that_is_left(here: Here, at_work: dict[str, AtWork]) -> None:
    """In the account the default group, which every one has; on this host nothing."""
    for client in at_work.values():
        client.done()
    groups = here.ec2.describe_security_groups()["SecurityGroups"]
    assert [group["GroupName"] for group in groups] == ["default"]
    assert here.ec2.describe_key_pairs()["KeyPairs"] == []
    here.forget_all()
    assert amibuild(here.folder, "local", "down").exit_code == 0
    assert left_on_host() == {}
