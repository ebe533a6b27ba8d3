"""The bake against the endpoint with driver none: what is in the account before and after.

Machines are scripted here, so nothing about provisioning is proven; order, ownership, names, tags
and clean-up are. tests/local/test_scenario.py has the same flow on real machines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from amibuild.bake import plan_bake, reasons
from amibuild.channels import find
from amibuild.errors import (
    AmibuildError,
    AwsError,
    CommandFailed,
    HostError,
    Interrupted,
    PlanError,
    ResourceFailed,
    UsageError,
    VerifyFailed,
)
from amibuild.journal import Noted, Remains, ResourceKind, Shown, StepStarted, read
from amibuild.local.faults import Fault
from amibuild.project import Project
from amibuild.reap import reap
from amibuild.registry import list_images
from amibuild.scope import OnError
from amibuild.steps.distribute import mark
from amibuild.verify.boot import verify
from amibuild.wait import Waiting
from tests.contract import builder
from tests.contract.account import account
from tests.contract.builder import AUDITED, FRESH, STAGES, Answers, changed, checks, new_project
from tests.contract.conftest import Aws, Start
from tests.contract.swift import swift

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import InstanceTypeDef, SecurityGroupTypeDef


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path / "project")


def test_only_the_image_and_its_snapshot_stay(start: Start, project: Project) -> None:
    aws = start(script=Answers())
    before = account(aws)
    result = builder.run(project, aws.cloud)
    after = account(aws)
    assert after["images"] - before["images"] == {result.image_id}
    assert len(after["snapshots"] - before["snapshots"]) == 1
    assert {k: after[k] - before[k] for k in ("instances", "volumes", "groups")} == {
        "instances": set(),
        "volumes": set(),
        "groups": set(),
    }


def test_image_and_snapshot_carry_the_same_marks(start: Start, project: Project) -> None:
    aws = start(script=Answers())
    result = builder.run(project, aws.cloud)
    image = aws.ec2.describe_images(ImageIds=[result.image_id])["Images"][0]
    snapshot_id = image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    snapshot = aws.ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"][0]
    tags = {t["Key"]: t["Value"] for t in image["Tags"]}
    assert tags == {t["Key"]: t["Value"] for t in snapshot["Tags"]}
    assert tags["amibuild:image"] == "game-host"
    assert tags["amibuild:version"] == result.version
    assert tags["amibuild:digest"] == result.digest
    assert tags["amibuild:source-ami"] == aws.base
    assert tags["amibuild:verified"] == "passed"
    assert "amibuild:expires" not in tags, "a result has no end"


def test_the_machines_ask_for_what_the_promises_say(
    start: Start, project: Project, tmp_path: Path
) -> None:
    log = tmp_path / "calls.jsonl"
    aws = start(script=Answers(), call_log=log)
    seen: list[InstanceTypeDef] = []

    def look(shown: Shown) -> None:
        if isinstance(shown, StepStarted) and shown.step == "connect":
            found = aws.ec2.describe_instances()["Reservations"]
            seen.extend(i for r in found for i in r["Instances"])

    builder.run(project, aws.cloud, look)
    (instance,) = seen
    assert instance["MetadataOptions"]["HttpTokens"] == "required"
    assert len(instance["SecurityGroups"]) == 1
    tags = {t["Key"]: t["Value"] for t in instance["Tags"]}
    assert tags["amibuild:purpose"] == "build"
    assert {"amibuild:bake-id", "amibuild:expires", "amibuild:token"} <= tags.keys()
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    assert "AuthorizeSecurityGroupIngress" not in {c.get("operation") for c in calls}


def test_over_ssh_this_host_alone_comes_in_and_at_one_port(start: Start, tmp_path: Path) -> None:
    project = changed(
        new_project(tmp_path / "project"), builder={"communicator": "ssh"}, ssh={"port": 2222}
    )
    aws = start()
    seen: list[SecurityGroupTypeDef] = []

    def look(shown: Shown) -> None:
        if isinstance(shown, StepStarted) and shown.step == "launch":
            seen.extend(aws.ec2.describe_security_groups()["SecurityGroups"])
            raise Interrupted("SIGINT")

    with pytest.raises(Interrupted):
        builder.run(project, aws.cloud, look)
    (group,) = (group for group in seen if group["GroupName"] != "default")
    (rule,) = group["IpPermissions"]
    assert (rule["FromPort"], rule["ToPort"]) == (2222, 2222)
    assert [r["CidrIp"] for r in rule["IpRanges"]] == ["127.0.0.1/32"]


def test_the_shipped_recipes_steps_run_in_the_plans_order(start: Start, tmp_path: Path) -> None:
    answers = Answers()
    shipped = new_project(tmp_path / "project", overrides=())
    builder.run(shipped, start(script=answers).cloud)
    *builders, one, other = answers.jobs
    assert builders == [
        "first-boot", "ssm-agent", "os", "logging", "hardening", "idle-stop",
        "minetest", "bzflag", "mumble", "openttd", "inventory", "audit", "seal",
    ]  # fmt: skip
    assert {one, other} == {"checks", "hygiene"}, "side by side"


def journal_of(project: Project) -> Remains:
    (path,) = (project.state_dir / "journals").iterdir()
    return Remains(path)


def test_versions_count_up_and_a_taken_name_is_passed_over(start: Start, project: Project) -> None:
    aws = start(script=Answers())
    name = f"game-host-{datetime.now(UTC):%Y.%m.%d}"
    aws.ec2.create_image(InstanceId=aws.stopped(), Name=f"{name}.1")  # without our tags
    first = builder.run(project, aws.cloud)
    assert journal_of(project).intents == {}
    second = builder.run(project, aws.cloud)
    assert (first.image_name, second.image_name) == (f"{name}.2", f"{name}.3")
    found = list_images(aws.cloud, "game-host")
    assert [one.version for one in found] == [second.version, first.version]
    assert find(aws.cloud, project.recipe, first.version).id == first.image_id


def test_who_has_a_name_may_be_seen_by_nobody_and_is_looked_for_again_by_reap(
    start: Start, project: Project
) -> None:
    aws = start("CreateImage:1=InvalidAMIName.Duplicate", script=Answers())
    with swift():
        result = builder.run(project, aws.cloud)
        assert result.version.endswith(".2")
        (intent,) = journal_of(project).intents.values()
        assert (intent.kind, intent.name) == (ResourceKind.IMAGE, result.image_name[:-1] + "1")
        reap(aws.cloud, project.state_dir, target="local", dry_run=False)
    assert journal_of(project).intents == {}
    assert result.image_id in account(aws)["images"]


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ("RunInstances", "instance"),
        ("CreateImage", "image"),
        ("CreateSecurityGroup", "security-group"),
        ("CreateVolume", "volume"),
    ],
)
def test_what_was_made_by_a_call_whose_answer_got_lost_is_waited_for_and_made_once(
    start: Start, project: Project, call: str, kind: str
) -> None:
    aws = start(f"{call}:1=ConnectionLost:after", f"visible:{kind}=4", script=Answers())
    before = account(aws)
    with swift():
        result = builder.run(project, aws.cloud)
    after = account(aws)
    assert result.version.endswith(".1")
    assert after["images"] - before["images"] == {result.image_id}
    assert len(after["snapshots"] - before["snapshots"]) == 1
    assert journal_of(project).intents == {}


def test_a_disk_that_is_not_seen_everywhere_yet_is_attached_later(
    start: Start, project: Project
) -> None:
    aws = start("visible:volume=4", "AttachVolume:1-3=InvalidVolume.NotFound", script=Answers())
    with swift():
        assert builder.run(project, aws.cloud).verified


def test_an_unchanged_image_is_reused_until_it_is_too_old(start: Start, project: Project) -> None:
    aws = start(script=Answers())
    first = builder.run(project, aws.cloud)
    again = builder.run(project, aws.cloud, if_changed=True)
    assert (again.image_id, again.reused) == (first.image_id, True)
    stale = changed(project, verify={"max_age_days": 0})
    heard: list[str] = []

    def hear(shown: Shown) -> None:
        if isinstance(shown, Noted):
            heard.append(shown.text)

    anew = builder.run(stale, aws.cloud, hear, if_changed=True)
    assert anew.reused is False
    assert heard[0].startswith(f"since {first.image_name}: nothing, but it is older than 0 days")


def test_it_says_what_became_of_the_image_that_it_does_not_reuse(
    start: Start, project: Project
) -> None:
    aws = start(script=Answers())
    made = builder.run(project, aws.cloud)

    def why() -> str:
        plan, reusable = plan_bake(project, aws.cloud)
        assert reusable is None
        (told,) = reasons(project, aws.cloud, plan, "local")
        start, _, told = told.partition(": nothing, but ")
        assert start == f"since {made.image_name}"
        return told

    def tag(**tags: str) -> None:
        named = [{"Key": f"amibuild:{name}", "Value": text} for name, text in tags.items()]
        aws.ec2.create_tags(Resources=[made.image_id], Tags=named)  # type: ignore[arg-type]

    tag(verified="failed")
    assert why() == "a verification of it failed"
    tag(verified="")
    assert why() == "it is not verified"
    tag(verified="passed", expires="2026-11-22T16:15:00Z")
    assert why() == "it is not verified"
    aws.ec2.delete_tags(Resources=[made.image_id], Tags=[{"Key": "amibuild:expires"}])
    past = datetime.now(UTC) - timedelta(seconds=30)
    aws.ec2.enable_image_deprecation(ImageId=made.image_id, DeprecateAt=past)
    assert why().startswith("it is deprecated since 20")
    aws.ec2.disable_image(ImageId=made.image_id)
    assert why() == "it is disabled"
    tag(revoked="loses worlds")
    assert why() == "it is revoked: loses worlds"
    tag(digest="other")
    assert why() == "its tag has another digest"
    aws.ec2.deregister_image(ImageId=made.image_id)
    assert why() == "it is gone"


def test_a_reused_image_is_handed_to_terraform_too(start: Start, project: Project) -> None:
    aws = start(script=Answers())
    first = builder.run(project, aws.cloud)
    tfvars = project.directory / "terraform" / "amibuild.auto.tfvars.json"
    written = tfvars.read_text()
    tfvars.write_text(written.replace(first.image_id, "ami-00000000"))
    builder.run(project, aws.cloud, if_changed=True)
    assert tfvars.read_text() == written


def test_a_reused_image_is_shared_with_accounts_that_were_added(
    start: Start, project: Project
) -> None:
    aws = start(script=Answers())
    mine = changed(project, aws={"kms_key": "alias/mine"})
    first = builder.run(mine, aws.cloud)
    shared = changed(mine, publish={"accounts": ["123456789012"]})
    assert builder.run(shared, aws.cloud, if_changed=True).reused is True
    found = aws.ec2.describe_image_attribute(ImageId=first.image_id, Attribute="launchPermission")
    assert found["LaunchPermissions"] == [{"UserId": "123456789012"}]


def test_what_preflight_refuses_is_refused_for_a_reused_image_too(
    start: Start, project: Project
) -> None:
    aws = start(script=Answers())
    builder.run(project, aws.cloud)
    elsewhere = changed(project, publish={"regions": ["eu-west-1"]})
    with pytest.raises(PlanError, match=r"publish\.regions"):
        builder.run(elsewhere, aws.cloud, if_changed=True)


def test_an_image_that_failed_a_later_proof_is_not_reused(start: Start, project: Project) -> None:
    aws = start(script=Answers())
    first = builder.run(project, aws.cloud)
    image = aws.cloud.images.image(first.image_id)
    mark(aws.cloud, image, passed=False)
    assert builder.run(project, aws.cloud, if_changed=True).reused is False
    mark(aws.cloud, image, passed=True)
    tagged = list_images(aws.cloud, "game-host")
    assert all(one.verified for one in tagged)


def test_an_image_is_not_proven_with_another_recipes_checks(start: Start, project: Project) -> None:
    aws = start(script=Answers())
    made = builder.run(project, aws.cloud)
    other = changed(project, image={"name": "other"})
    with pytest.raises(UsageError, match="is an image of game-host"):
        verify(other, aws.cloud, made.image_id, target="local", subscribers=())


def test_an_image_that_was_never_verified_is_not_reused(start: Start, project: Project) -> None:
    aws = start(script=Answers())
    first = builder.run(project, aws.cloud)
    aws.ec2.delete_tags(Resources=[first.image_id], Tags=[{"Key": "amibuild:verified"}])
    assert builder.run(project, aws.cloud, if_changed=True).reused is False


def test_the_next_instance_type_is_taken_when_the_first_is_not_to_be_had(
    start: Start, project: Project
) -> None:
    zones = 6  # us-east-1's, as moto knows them: the first type is refused in each
    aws = start(*(f"RunInstances:{n}=Unsupported" for n in range(1, zones + 1)), script=Answers())
    types: list[str] = []

    def look(shown: Shown) -> None:
        if isinstance(shown, StepStarted) and shown.step == "connect":
            found = aws.ec2.describe_instances()["Reservations"]
            types.extend(i["InstanceType"] for r in found for i in r["Instances"])

    builder.run(project, aws.cloud, look)
    assert types == ["c6i.large"]


@pytest.mark.parametrize("stage", ["os", "seal", "first-boot"])
def test_a_failing_step_leaves_the_account_as_it_was(
    start: Start, project: Project, stage: str
) -> None:
    aws = start(script=Answers(exit_codes={stage: 3}))
    before = account(aws)
    with pytest.raises(CommandFailed) as caught:
        builder.run(project, aws.cloud)
    assert caught.value.tail == (f"{stage} says hello",)
    assert account(aws) == before


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("minetest", "minetest: what the machine handed back can't be read: Input should be"),
        ("inventory", "the inventory: what the machine handed back can't be read: Input should be"),
        ("hygiene", "the look at the finished disk: what the machine handed back can't be read: "),
        ("checks", "the machine's report can't be read: Input should be"),
    ],
)
def test_a_machine_that_answers_nonsense_ends_the_bake_with_what_it_was_about(
    start: Start, project: Project, job: str, said: str
) -> None:
    answers = Answers()
    answers.results[job] = ["nonsense"]
    aws = start(script=answers)
    before = account(aws)
    with pytest.raises(AmibuildError, match=re.escape(said)):
        builder.run(project, aws.cloud)
    assert account(aws) == before


def test_a_measure_that_is_none_costs_the_papers_and_not_the_image(
    start: Start, project: Project
) -> None:
    answers = Answers()
    answers.results["checks"] = builder.checks(measures={"exposure": "much"})
    aws = start(script=answers)
    with pytest.raises(CommandFailed, match="what they measured can't be read: ") as caught:
        builder.run(project, aws.cloud)
    (image,) = list_images(aws.cloud, "game-host")
    assert image.verified
    assert caught.value.__notes__ == [
        f"{image.id} is proven and stays; its papers are not all written"
    ]


@pytest.mark.parametrize("half", ["audit", "checks", "hygiene"])
def test_a_failed_proof_leaves_no_image(start: Start, project: Project, half: str) -> None:
    answers = Answers()
    finding = {"rule": "no swap", "path": "/swapfile", "detail": "is there"}
    answers.results[half] = {
        "audit": builder.audit("failed", "E   the port is closed"),
        "checks": builder.checks("failed", "E   the port is closed"),
        "hygiene": {"passed": [], "failed": [finding]},
    }[half]
    aws = start(script=answers)
    before = account(aws)
    with pytest.raises(VerifyFailed) as caught:
        builder.run(project, aws.cloud)
    assert any("port is closed" in f or "/swapfile" in f for f in caught.value.failures)
    assert account(aws) == before
    assert not (project.directory / "RUNBOOK.md").exists()


def test_a_key_that_the_recipe_calls_public_is_on_record(start: Start, project: Project) -> None:
    rule, path = "no private key in any block", "/opt/game/tests/key.pem"
    waived = [
        {"rule": rule, "path": path, "detail": f"is a rsa private key, at byte {at} of the disk"}
        for at in (4096, 8192)
    ]
    answers = Answers()
    answers.results["hygiene"] = {"passed": [rule], "failed": [], "waived": waived}
    result = builder.run(project, start(script=answers).cloud)
    assert result.manifest and result.runbook
    written = json.loads(result.manifest.read_text())["hygiene"]
    assert written == {"passed": [rule], "failed": [], "waived": waived}
    (row,) = [line for line in result.runbook.read_text().splitlines() if path in line]
    assert row.startswith("| Private keys called public | in `/opt/game/tests/key.pem`: ")


def interrupt_at_agent(stage: str) -> Callable[[Shown], None]:
    """Ctrl-C while that stage waits for its machine's agent."""
    begun: list[str] = []

    def interrupt(shown: Shown) -> None:
        if isinstance(shown, StepStarted):
            begun.append(shown.step)
        elif isinstance(shown, Waiting) and shown.what.endswith("agent") and begun[-1] == stage:
            raise Interrupted("SIGINT")

    return interrupt


@pytest.mark.parametrize(("stage", "log"), [("connect", "builder"), ("verify", "verify")])
def test_an_interrupt_keeps_the_console_of_the_machine_that_was_waited_for(
    start: Start, project: Project, stage: str, log: str
) -> None:
    aws = start(script=Answers())
    before = account(aws)
    with pytest.raises(Interrupted) as caught:
        builder.run(project, aws.cloud, interrupt_at_agent(stage))
    (console,) = project.state_dir.glob(f"logs/*/{log}-console.log")
    assert console.read_text().startswith("no machine behind i-")
    assert caught.value.__notes__ == [f"its console: {console}"]
    assert account(aws) == before


def test_a_console_that_is_not_to_be_had_is_asked_for_once_and_holds_up_nothing(
    start: Start, project: Project, tmp_path: Path
) -> None:
    latest = "GetConsoleOutput[true]:*=RequestLimitExceeded"  # others are answered
    aws = start(latest, script=Answers(), call_log=tmp_path / "calls")
    before = account(aws)
    with pytest.raises(Interrupted) as caught:
        builder.run(project, aws.cloud, interrupt_at_agent("connect"))
    (note,) = caught.value.__notes__
    assert note.startswith("its console could not be kept: GetConsoleOutput on i-")
    calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    assert [call["operation"] for call in calls].count("GetConsoleOutput") == 1
    assert account(aws) == before


def test_an_image_without_its_papers_is_told_to_stay(start: Start, project: Project) -> None:
    def close(shown: Shown) -> None:
        if isinstance(shown, StepStarted) and shown.step == "record":
            (project.directory / "terraform").write_text("no folder")

    aws = start(script=Answers())
    with pytest.raises(HostError, match=r"ami-[0-9a-f]+ is proven and stays, but .*terraform"):
        builder.run(project, aws.cloud, close)
    assert len(list_images(aws.cloud, project.recipe.image.name)) == 1


def test_an_interrupt_inside_a_call_is_not_taken_for_a_lost_connection(aws: Aws) -> None:
    """botocore turns an Exception that is raised while it sends into one of its own, and retries.

    Measured: a Ctrl-C in such a moment was lost, and every later one ignored.
    """

    def interrupt(**_: object) -> None:
        raise Interrupted("SIGINT")

    cloud = aws.cloud
    events = cloud._ec2.meta.events
    events.register("before-send.ec2.DescribeInstances", interrupt)
    with pytest.raises(Interrupted):
        cloud.ec2.instance("i-0123456789abcdef0")


def test_reap_leaves_the_journal_of_another_target_alone(start: Start, project: Project) -> None:
    aws = start(script=Answers(exit_codes={"os": 3}))
    with pytest.raises(CommandFailed):
        builder.run(project, aws.cloud, on_error=OnError.KEEP)
    (path,) = (project.state_dir / "journals").iterdir()
    text = path.read_text()
    report = reap(aws.cloud, project.state_dir, target="aws", dry_run=False, kept=True)
    assert (report.removed, len(report.elsewhere)) == ([], 1)
    assert path.read_text() == text
    assert len(account(aws)["instances"]) == 1


def test_what_was_kept_for_a_look_goes_when_asked_or_when_its_time_is_over(
    start: Start, project: Project
) -> None:
    aws = start(script=Answers(exit_codes={"os": 3}))
    before = account(aws)
    for more in ({"kept": True}, {"now": datetime.now(UTC) + timedelta(days=2)}):
        with pytest.raises(CommandFailed):
            builder.run(project, aws.cloud, on_error=OnError.KEEP)
        assert reap(aws.cloud, project.state_dir, target="local", dry_run=False).removed == []
        reap(aws.cloud, project.state_dir, target="local", dry_run=False, **more)
        assert account(aws) == before


def test_a_machine_that_ends_though_no_answer_says_so_is_not_told_as_left(
    start: Start, project: Project
) -> None:
    aws = start(script=Answers(exit_codes={"os": 3}))
    with pytest.raises(CommandFailed):
        builder.run(project, aws.cloud, on_error=OnError.KEEP)
    aws.service.scripted.faults.order([Fault.parse("TerminateInstances:*=InternalError:after")])
    with swift():
        report = reap(aws.cloud, project.state_dir, target="local", dry_run=False, kept=True)
    assert report.left == []
    assert {one.kind for one in report.removed} >= {ResourceKind.INSTANCE}


def test_nothing_without_our_tags_is_ever_reaped(start: Start, project: Project) -> None:
    aws = start(script=Answers())
    theirs = aws.running()
    later = datetime.now(UTC) + timedelta(days=400)
    report = reap(aws.cloud, project.state_dir, target="local", dry_run=False, now=later)
    assert report.removed == []
    assert aws.state(theirs) == "running"


def test_reap_leaves_a_live_bake_alone(start: Start, project: Project) -> None:
    aws = start(script=Answers())
    reports = []

    def look(shown: Shown) -> None:
        if isinstance(shown, StepStarted) and shown.step == "os":
            reports.append(reap(aws.cloud, project.state_dir, target="local", dry_run=False))

    result = builder.run(project, aws.cloud, look)
    assert result.verified
    assert reports[0].removed == []
    assert len(reports[0].live) == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("boot:1=out of memory", "out of memory"), ("capture:1=disk full", "disk full")],
)
def test_a_dead_state_is_told_with_its_reason_and_leaves_nothing(
    start: Start, project: Project, fault: str, reason: str
) -> None:
    aws = start(fault, script=Answers())
    before = account(aws)
    with pytest.raises(ResourceFailed, match=reason):
        builder.run(project, aws.cloud)
    assert account(aws) == before


@pytest.mark.parametrize(
    "call", ["RunInstances", "CreateSecurityGroup", "CreateImage", "CreateVolume"]
)
def test_an_answer_that_got_lost_leaves_nothing_behind(
    start: Start, project: Project, call: str
) -> None:
    aws = start(f"{call}:*=InvalidRequest:after", script=Answers())
    before = account(aws)
    with pytest.raises(AwsError, match="InvalidRequest"):
        builder.run(project, aws.cloud)
    assert account(aws) == before


def test_preflight_tells_all_reasons_at_once_and_creates_nothing(
    start: Start, project: Project
) -> None:
    aws = start(script=Answers())
    before = account(aws)
    hopeless = changed(
        project,
        aws={"bucket": "no-such-bucket", "instance_profile": "no-such-profile"},
        publish={"accounts": ["123456789012"], "regions": ["eu-west-1"]},
    )
    with pytest.raises(PlanError) as caught:
        builder.run(hopeless, aws.cloud)
    for key in ("aws.bucket", "aws.instance_profile", "publish.accounts", "publish.regions"):
        assert key in caught.value.message
    assert account(aws) == before


def test_with_a_bucket_payloads_go_through_it_and_only_the_manifest_stays(
    start: Start, project: Project
) -> None:
    answers = Answers()
    aws = start(script=answers)
    aws.s3.create_bucket(Bucket="a-bucket-of-ours")
    result = builder.run(changed(project, aws={"bucket": "a-bucket-of-ours"}), aws.cloud)
    kept = aws.s3.list_objects_v2(Bucket="a-bucket-of-ours")["Contents"]
    assert [o["Key"] for o in kept] == [f"amibuild/manifests/{result.image_name}.json"]
    sent = [c["Comment"] for c in aws.ssm.list_commands()["Commands"]]
    assert not [c for c in sent if "sending" in c], "nothing had to go in pieces"
    assert "checks" in answers.jobs


def test_what_a_step_declares_and_the_boot_are_in_the_papers(
    start: Start, project: Project
) -> None:
    answers = Answers()
    answers.results["logging"] = "the agent is absent"
    answers.results["checks"] = {**checks(), "boot": {"seconds": 7.25, "machine": "amazon"}}
    result = builder.run(project, start(script=answers).cloud)
    assert result.manifest is not None and result.runbook is not None
    manifest = json.loads(result.manifest.read_text())
    notes = {step["name"]: step["notes"] for step in manifest["steps"] if step["notes"]}
    assert notes == {"logging": ['"the agent is absent"']}
    assert manifest["boot"] == {"seconds": 7.25, "machine": "amazon"}
    assert manifest["hardening"] == {
        "environment": "container",
        "machine": "systemd-nspawn",
        "lynis": {
            "index": 76,
            "floor": 74,
            "version": "3.1.4",
            "tests": 242,
            "open": ["BOOT-5122", "KRNL-6000"],
            "lost_to_host_kernel": ["KRNL-6000"],
        },
        "builder": None,
        "secure_boot": None,
        "exposure": {},
        "openscap": None,
    }
    judged = [check["name"] for check in manifest["checks"] if "lynis" in check["name"]]
    assert judged == [f"{AUDITED} on the builder"]
    (journal,) = (project.state_dir / "journals").iterdir()
    noted = [event.text for event in read(journal) if isinstance(event, Noted)]
    assert 'logging: "the agent is absent"' in noted
    runbook = result.runbook.read_text()
    assert '- It declared: "the agent is absent"' in runbook
    boots = "7.2 s (amazon) in userspace on that boot; its source 1.5 s (none) as the builder"
    assert f"| Boot | {boots} |" in runbook


def test_the_fresh_boots_judgement_does_not_hide_the_builders(
    start: Start, project: Project
) -> None:
    answers = Answers()
    answers.results["checks"] = {**checks(), "checks": [FRESH]}
    result = builder.run(project, start(script=answers).cloud)
    assert result.manifest is not None
    hardening = json.loads(result.manifest.read_text())["hardening"]
    assert (hardening["environment"], hardening["lynis"]["index"]) == ("virtual machine", 88)
    assert hardening["builder"]["environment"] == "container"
    assert hardening["builder"]["lynis"]["index"] == 76


def test_a_bucket_payload_is_removed_when_the_bake_fails(start: Start, project: Project) -> None:
    answers = Answers(exit_codes={"hygiene": 1})
    aws = start(script=answers)
    aws.s3.create_bucket(Bucket="a-bucket-of-ours")
    with pytest.raises(CommandFailed):
        builder.run(changed(project, aws={"bucket": "a-bucket-of-ours"}), aws.cloud)
    assert "Contents" not in aws.s3.list_objects_v2(Bucket="a-bucket-of-ours")


def test_the_journal_tells_the_whole_story(start: Start, project: Project) -> None:
    aws = start(script=Answers())
    builder.run(project, aws.cloud)
    (path,) = (project.state_dir / "journals").iterdir()
    events = list(read(path))
    assert [e.step for e in events if isinstance(e, StepStarted)] == list(STAGES)
    assert events[0].event == "bake-started"
    assert events[-1].event == "bake-ended"
