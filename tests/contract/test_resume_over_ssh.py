"""A bake over SSH that was kept is gone on with by keys that its builder knows, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from amibuild.bake_keys import keys_file
from amibuild.communicator.ssh_keys import new_identity
from amibuild.errors import Denied, HostError, PlanError, StepFailed
from amibuild.names import BakeId
from amibuild.project import Project
from amibuild.scope import OnError
from tests.contract import builder
from tests.contract.account import account
from tests.contract.builder import Answers, changed, new_project
from tests.contract.conftest import Aws, Start
from tests.contract.ssh_builder import SshBuilder
from tests.contract.swift import swift
from tests.contract.test_resume import kept_after, new, only_bake

HERE, ELSEWHERE = "198.51.100.7/32", "203.0.113.9/32"


@dataclass
class Kept:
    """A recipe over SSH, and what answers its jobs."""

    project: Project
    far: SshBuilder
    answers: Answers = field(default_factory=Answers)

    @property
    def keys(self) -> Path:
        return keys_file(self.project.state_dir, BakeId(only_bake(self.project)))

    def after(self, aws: Aws, step: str) -> str:
        """The id of a bake that failed in that step, with all kept."""
        return kept_after(self.project, aws, self.answers, step)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    project = new_project(tmp_path / "project")
    far = SshBuilder(tmp_path, lambda: made.keys, lambda script: made.answers(script))
    ssh = {"user": "root", "proxy_command": far.proxy_command}
    project = changed(project, builder={"communicator": "ssh"}, ssh=ssh, aws={"source_cidr": HERE})
    made = Kept(project, far)
    yield made
    far.close()


def admitted(aws: Aws) -> list[tuple[str, int]]:
    groups = aws.ec2.describe_security_groups()["SecurityGroups"]
    return [
        one
        for group in groups
        if group["GroupName"] != "default"
        for one in aws.cloud.ec2.admitted(group["GroupId"])
    ]


def test_it_is_gone_on_with_by_the_keys_of_the_bake(start: Start, kept: Kept) -> None:
    aws = start(script=kept.answers)
    before = account(aws)
    bake_id = kept.after(aws, "hardening")
    keys = kept.keys.read_text()
    result = builder.run(kept.project, aws.cloud, resume=bake_id)
    assert kept.answers.jobs[:4] == ["first-boot", "hardening", "idle-stop", "minetest"]
    assert result.verified
    assert new(aws, before) == {"images": 1, "snapshots": 1}
    assert kept.far.identity is not None
    assert kept.far.identity.model_dump_json() == keys
    assert not kept.keys.exists()


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"builder": {"communicator": "ssm"}}, "builder.communicator was ssh .* and is ssm"),
        ({"ssh": {"port": 2222}}, "ssh.port was 22 when it was launched, and is 2222"),
        ({"ssh": {"user": "admin"}}, "ssh.user was root when it was launched, and is admin"),
        ({"ssh": {"agent": True}}, "ssh.agent was False when it was launched, and is True"),
        ({"ssh": {"private_key": "~/key"}}, "ssh.private_key was None .* and is ~/key"),
    ],
)
def test_another_way_in_is_refused_and_nothing_is_lost(
    start: Start, kept: Kept, sections: dict[str, dict[str, object]], said: str
) -> None:
    aws = start(script=kept.answers)
    bake_id = kept.after(aws, "hardening")
    there, keys = account(aws), kept.keys.read_text()
    with pytest.raises(PlanError, match=f"bake {bake_id} can't go on with i-.*: {said}"):
        builder.run(changed(kept.project, **sections), aws.cloud, resume=bake_id)
    assert (account(aws), kept.keys.read_text(), kept.answers.jobs) == (there, keys, [])


def test_one_over_ssm_is_not_gone_on_with_over_ssh(start: Start, kept: Kept) -> None:
    aws = start(script=kept.answers)
    over_ssm = changed(kept.project, builder={"communicator": "ssm"})
    bake_id = kept_after(over_ssm, aws, kept.answers, "hardening")
    there = account(aws)
    with pytest.raises(PlanError, match=r"builder\.communicator was ssm .* and is ssh"):
        builder.run(kept.project, aws.cloud, resume=bake_id)
    assert account(aws) == there
    assert not kept.keys.exists()


def test_by_another_way_to_the_same_door_it_is_gone_on_with(start: Start, kept: Kept) -> None:
    aws = start(script=kept.answers)
    bake_id = kept.after(aws, "hardening")
    other = {"proxy_command": f"nice {kept.far.proxy_command}", "address": "private"}
    kept.answers.exit_codes = {"hardening": 7}
    with pytest.raises(StepFailed):
        builder.run(
            changed(kept.project, ssh=other), aws.cloud, resume=bake_id, on_error=OnError.KEEP
        )
    assert kept.answers.jobs == ["first-boot", "hardening"]


@pytest.mark.parametrize(
    ("content", "said"), [(None, "are gone: there is no"), ("{", "is damaged"), ("", "is damaged")]
)
def test_without_its_keys_it_is_refused_and_nothing_is_lost(
    start: Start, kept: Kept, content: str | None, said: str
) -> None:
    aws = start(script=kept.answers)
    bake_id = kept.after(aws, "hardening")
    there = account(aws)
    kept.keys.unlink()
    if content is not None:
        kept.keys.write_text(content)
    with pytest.raises(HostError, match=f"the keys of bake {bake_id} .*{said}"):
        builder.run(kept.project, aws.cloud, resume=bake_id)
    assert (account(aws), kept.answers.jobs) == (there, [])
    assert not kept.keys.exists() or kept.keys.read_text() == content


def test_without_the_recipes_own_key_nothing_is_lost(
    start: Start, kept: Kept, tmp_path: Path
) -> None:
    aws = start(script=kept.answers)
    key = tmp_path / "key"
    key.write_text(new_identity().user_key)
    kept.project = changed(kept.project, ssh={"private_key": str(key)})
    kept.far.admits_all = True
    bake_id = kept.after(aws, "hardening")
    there = account(aws)
    key.unlink()
    with pytest.raises(PlanError, match=r"ssh\.private_key: .* can't be read"):
        builder.run(kept.project, aws.cloud, resume=bake_id)
    assert account(aws) == there


def test_the_address_of_before_is_no_longer_admitted(start: Start, kept: Kept) -> None:
    aws = start(script=kept.answers)
    bake_id = kept.after(aws, "hardening")
    assert admitted(aws) == [(HERE, 22)]
    kept.answers.exit_codes = {"hardening": 7}
    elsewhere = changed(kept.project, aws={"source_cidr": ELSEWHERE})
    with pytest.raises(StepFailed):
        builder.run(elsewhere, aws.cloud, resume=bake_id, on_error=OnError.KEEP)
    assert admitted(aws) == [(ELSEWHERE, 22)]


def test_who_may_not_revoke_is_told_before_anything_is_lost(start: Start, kept: Kept) -> None:
    aws = start("RevokeSecurityGroupIngress:1=UnauthorizedOperation", script=kept.answers)
    bake_id = kept.after(aws, "hardening")
    there = account(aws)
    elsewhere = changed(kept.project, aws={"source_cidr": ELSEWHERE})
    with pytest.raises(Denied):
        builder.run(elsewhere, aws.cloud, resume=bake_id)
    assert account(aws) == there


def test_one_that_fails_as_soon_as_it_owns_all_leaves_no_keys(start: Start, kept: Kept) -> None:
    """In another network than its own, where it would need another group."""
    aws = start("CreateSecurityGroup:2=UnauthorizedOperation", script=kept.answers)
    vpc = aws.ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    asked = aws.ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.0.0/24")
    elsewhere = changed(kept.project, aws={"subnet": asked["Subnet"]["SubnetId"]})
    before = account(aws)
    bake_id = kept.after(aws, "hardening")
    with swift(), pytest.raises(Denied, match="CreateSecurityGroup"):
        builder.run(elsewhere, aws.cloud, resume=bake_id)
    assert new(aws, before) == {}
    assert not kept.keys.exists()
