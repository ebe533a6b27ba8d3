"""The README names every verb, and its generated part is fresh."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from amibuild.cli import docs
from amibuild.local.overlay.operations import SERVICES

README = Path(__file__).parents[2] / "README.md"
PACKAGE = README.parent / "amibuild"
# As botocore calls them, and as people do.
SERVICE_NAMES = {
    "ec2": "EC2",
    "ssm": "SSM",
    "s3": "S3",
    "sts": "STS",
    "iam": "IAM",
    "secretsmanager": "Secrets Manager",
    "kms": "KMS",
    "logs": "CloudWatch with its logs",
    "monitoring": "CloudWatch",
    "events": "events",
    "sns": "SNS",
    "sqs": "SQS",
    "dynamodb": "DynamoDB",
    "route53": "Route 53",
}


@pytest.mark.parametrize("verb", [" ".join(verb) for verb in docs.verbs()])
def test_every_verb_is_explained(verb: str) -> None:
    prose = README.read_text().partition(docs.BEGIN)[0]
    group, _, name = verb.partition(" ")
    named = f"`{verb}" in prose or (name and f"`{group} " in prose and name in prose)
    assert named, f"README.md does not explain `{verb}`"


def test_the_help_in_it_is_not_stale() -> None:
    text = README.read_text()
    assert docs.refreshed(text) == text, "run `make docs`"


def test_the_help_is_the_golden_one_whatever_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wide = docs.block()
    monkeypatch.setenv("COLUMNS", "200")
    assert docs.block() == wide


def test_every_verb_that_a_message_names_exists() -> None:
    known = {" ".join(verb) for verb in docs.verbs()}
    groups = {verb.partition(" ")[0] for verb in known if " " in verb}
    for path in PACKAGE.rglob("*.py"):
        for named in re.finditer(r"`amibuild ([a-z]+)(?: ([a-z]+))?", path.read_text()):
            first, second = named.groups()
            verb = f"{first} {second}" if first in groups and second else first
            assert verb in known | groups, f"{path}: {named.group()}"


def test_every_service_that_the_endpoint_answers_for_is_named() -> None:
    prose = README.read_text()
    assert {*SERVICE_NAMES} == SERVICES
    for name in SERVICE_NAMES.values():
        assert name in prose


def test_a_mounted_volume_is_never_detached_from_a_running_machine() -> None:
    text = README.read_text()
    attachment = text[text.index('resource "aws_volume_attachment"') :].partition("```")[0]
    assert "stop_instance_before_detaching = true" in attachment
