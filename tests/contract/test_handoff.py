"""`amibuild terraform`: what it writes, and what Terraform makes of it on the local endpoint.

Terraform and its AWS provider are not everywhere: where they are missing, this says so. A provider
takes seconds to start, so one apply and one destroy carry all that is looked at.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from amibuild.change import manifest_key
from amibuild.errors import UsageError
from amibuild.handoff import hand_image_over
from amibuild.outputs.manifest import to_json
from amibuild.outputs.terraform import EXAMPLE, MODULE, TFVARS, example, module
from amibuild.project import Project
from tests.contract import terraform_cli
from tests.contract.builder import changed, new_project
from tests.contract.conftest import KEY, REGION, Aws, Start
from tests.contract.imaged import snapshot_of, tagged
from tests.contract.terraform_cli import Terraform
from tests.local.clients import need
from tests.unit.samples import manifest
from tests.unit.test_terraform import pinned

OLD, NEW = "2026.11.21.1", "2026.11.22.1"
DIGEST = "3f" * 32
BUCKET = "a-bucket-of-ours"
PARAMETER = "/amibuild/game-host/nightly/ami-id"
TESTS = Path(__file__).parent / "handoff"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path / "project")


def register(aws: Aws, snapshot: str, version: str, **tags: str) -> str:
    """An image of the recipe, proven unless the tags say otherwise."""
    ours = {
        "amibuild:image": "game-host",
        "amibuild:version": version,
        "amibuild:digest": DIGEST,
        "amibuild:verified": "passed",
        **tags,
    }
    return aws.ec2.register_image(
        Name=f"game-host-{version}",
        RootDeviceName="/dev/xvda",
        Architecture="x86_64",
        VirtualizationType="hvm",
        BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}}],
        TagSpecifications=tagged("image", **ours),  # type: ignore[arg-type]
    )["ImageId"]


def note_manifest(project: Project, version: str, image: str, *, volume: bool = True) -> None:
    folder = project.state_dir / "manifests"
    folder.mkdir(parents=True, exist_ok=True)
    one = manifest(version, image_id=image)
    if not volume:
        services = {
            name: service.model_copy(update={"volume": None, "backup": None})
            for name, service in one.services.items()
        }
        one = one.model_copy(update={"services": services})
    (folder / f"{one.image.name}.json").write_text(to_json(one))


def test_the_newest_proven_image_is_pinned_and_all_else_is_refused(
    aws: Aws, project: Project
) -> None:
    with pytest.raises(UsageError, match="there is no verified image of game-host"):
        hand_image_over(project, aws.cloud, None)
    snapshot = snapshot_of(aws, aws.image())
    old = register(aws, snapshot, OLD)
    unproven = register(aws, snapshot, NEW, **{"amibuild:verified": "failed"})
    other = register(aws, snapshot, "2026.11.23.1", **{"amibuild:image": "web-host"})
    with pytest.raises(UsageError, match="is not known: its manifest is not in"):
        hand_image_over(project, aws.cloud, None)
    assert not (project.directory / "terraform").exists()
    note_manifest(project, OLD, old)
    handed = hand_image_over(project, aws.cloud, None)
    assert handed.image.id == old
    told = json.loads((project.directory / "terraform" / TFVARS).read_text())
    assert (told["amibuild_ami_id"], told["amibuild_region"]) == (old, REGION)
    assert list(told["amibuild_services"]) == ["minetest"]
    assert told["amibuild_channel_parameter"] == "/amibuild/game-host/{channel}/ami-id"
    with pytest.raises(UsageError, match=f"{unproven} .* is not proven"):
        hand_image_over(project, aws.cloud, NEW)
    with pytest.raises(UsageError, match="is an image of web-host"):
        hand_image_over(project, aws.cloud, other)


def test_a_manifest_that_is_only_in_the_bucket_is_read_there(aws: Aws, project: Project) -> None:
    project = changed(project, aws={"bucket": BUCKET})
    image = register(aws, snapshot_of(aws, aws.image()), OLD)
    # Who can't read it is told, since the recipe makes another image.
    with pytest.raises(UsageError, match=f"or s3://{BUCKET} .*NoSuchBucket"):
        hand_image_over(project, aws.cloud, None)
    aws.s3.create_bucket(Bucket=BUCKET)
    with pytest.raises(UsageError, match=f"its manifest is not in .* or s3://{BUCKET}"):
        hand_image_over(project, aws.cloud, None)
    one = manifest(OLD, image_id=image)
    aws.cloud.s3.put(BUCKET, manifest_key(one.image.name), to_json(one).encode())
    assert hand_image_over(project, aws.cloud, None).image.id == image
    told = json.loads((project.directory / "terraform" / TFVARS).read_text())
    assert list(told["amibuild_services"]) == ["minetest"]


def test_the_module_is_replaced_and_the_example_is_the_users(aws: Aws, project: Project) -> None:
    image = register(aws, snapshot_of(aws, aws.image()), OLD)
    note_manifest(project, OLD, image)
    folder = project.directory / "terraform"
    first = hand_image_over(project, aws.cloud, OLD)
    assert (folder / EXAMPLE / "main.tf").read_text() == example()["main.tf"]
    assert first.kept == ()
    assert sorted(first.written) == sorted(path for path in folder.rglob("*") if path.is_file())
    (folder / MODULE / "main.tf").write_text("# mine\n")
    (folder / EXAMPLE / "main.tf").write_text("# mine\n")
    (folder / EXAMPLE / "role.tf").unlink()
    again = hand_image_over(project, aws.cloud, OLD)
    assert again.kept == (folder / EXAMPLE,)
    assert (folder / MODULE / "main.tf").read_text() == module()["main.tf"]
    assert (folder / EXAMPLE / "main.tf").read_text() == "# mine\n"
    assert not (folder / EXAMPLE / "role.tf").exists()


@pytest.fixture
def terraform(
    start: Start, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Aws, Terraform]]:
    need("terraform", terraform_cli.problem())
    monkeypatch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")  # as an endpoint has it
    aws = start()
    account = {
        "AWS_ACCESS_KEY_ID": KEY.id,
        "AWS_SECRET_ACCESS_KEY": KEY.secret,
        "AWS_ENDPOINT_URL": aws.service.url,
    }
    environment = terraform_cli.environment(tmp_path, account)
    yield aws, Terraform(project.directory / "terraform" / EXAMPLE, environment)


def test_terraform_makes_a_host_and_follows_its_channel(
    terraform: tuple[Aws, Terraform], project: Project
) -> None:
    aws, tf = terraform
    snapshot = snapshot_of(aws, aws.image())
    images = {version: register(aws, snapshot, version) for version in (OLD, NEW)}
    # The provider looks at a volume every ten seconds: the test of the module has one.
    note_manifest(project, OLD, images[OLD], volume=False)
    hand_image_over(project, aws.cloud, OLD)
    follow = ("-var", "channel=nightly")
    move_channel(aws, images[OLD])
    tf.run("init", "-input=false")
    tf.run("validate")
    tf.run("apply", "-auto-approve", "-input=false", *follow)
    (found,) = aws.ec2.describe_instances(Filters=[{"Name": "tag:Name", "Values": ["game-host"]}])[
        "Reservations"
    ]
    host = found["Instances"][0]
    assert host["ImageId"] == images[OLD]
    assert host["MetadataOptions"]["HttpTokens"] == "required"
    assert "KeyName" not in host
    (group,) = aws.ec2.describe_security_groups(GroupNames=["game-host"])["SecurityGroups"]
    opened = [(p["IpProtocol"], p["FromPort"], p["ToPort"]) for p in group["IpPermissions"]]
    assert opened == [("udp", 30000, 30000)], "what minetest's service.toml calls public, no SSH"
    move_channel(aws, images[NEW])
    changes = tf.changes(*follow)
    instance = changes.pop("aws_instance.host")
    assert (instance["before"]["ami"], instance["after"]["ami"]) == (images[OLD], images[NEW])
    assert instance["replace_paths"] == [["ami"]]
    assert changes == {}
    tf.run("destroy", "-auto-approve", "-input=false", *follow)


def test_the_modules_promises_hold_without_an_account(
    terraform: tuple[Aws, Terraform], project: Project
) -> None:
    """`terraform test`, with a provider that only knows what there is."""
    _, tf = terraform
    folder = project.directory / "terraform"
    written = {f"{MODULE}/{name}": text for name, text in module().items()}
    written |= {f"{EXAMPLE}/{name}": text for name, text in example().items()}
    for name, text in (*written.items(), (TFVARS, pinned())):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for place, test in ((MODULE, "image"), (EXAMPLE, "host")):
        (folder / place / "tests").mkdir()
        shutil.copy(TESTS / f"{test}.tftest.hcl", folder / place / "tests")
        tf.run("init", "-input=false", folder=folder / place)
        assert "0 failed" in tf.run("test", folder=folder / place)
    tf.run("fmt", "-check", "-diff", "-recursive", folder=folder)
    tf.run("fmt", "-check", "-diff", folder=TESTS)


def move_channel(aws: Aws, image: str) -> None:
    aws.ssm.put_parameter(
        Name=PARAMETER, Value=image, Type="String", DataType="aws:ec2:image", Overwrite=True
    )

    def see() -> str:
        found = aws.ssm.get_parameters(Names=[PARAMETER])["Parameters"]
        return found[0]["Value"] if found else "not there yet"

    aws.until(see, image)
