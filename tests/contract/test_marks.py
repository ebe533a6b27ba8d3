"""What `verify` finds is on the image, for who promotes it: as the recipe made it, key and all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from amibuild.names import Tag
from amibuild.verify.boot import verify
from tests.contract import builder
from tests.contract.builder import Answers, changed, new_project
from tests.contract.conftest import Start

KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd"


@pytest.mark.parametrize("aws_settings", [{}, {"kms_key": KEY}], ids=["aws/ebs", "own key"])
def test_an_image_that_fails_later_is_marked(
    start: Start, tmp_path: Path, aws_settings: dict[str, Any]
) -> None:
    project = changed(new_project(tmp_path / "project"), aws=aws_settings)
    answers = Answers()
    aws = start(script=answers)
    image = builder.run(project, aws.cloud).image_id
    assert aws.cloud.images.image(image).tags[Tag.VERIFIED] == "passed"
    answers.results["checks"] = builder.checks("failed", "E   AssertionError: closed")
    proof = verify(project, aws.cloud, image, target="local", subscribers=())
    assert not proof.passed
    assert aws.cloud.images.image(image).tags[Tag.VERIFIED] == "failed"
