"""Parameter Store: the base image's public parameter, and channels that outlive the endpoint."""

from __future__ import annotations

from typing import Any

import pytest

from amibuild.local import debian
from tests.contract.answers import answers
from tests.contract.conftest import Aws, Refuses, Start

PUT = "SSM API reference, PutParameter"
AMI_PARAMETERS = "SSM user guide, Using native parameter support for AMI IDs"
CHANNEL = "/amibuild/game-host/nightly/ami-id"
MISSING = "ami-0123456789abcdef0"


def version(aws: Aws, name: str = CHANNEL) -> str:
    """The parameter's version that can be read now; `none` before there is one."""
    found = aws.ssm.get_parameters(Names=[name])["Parameters"]
    return str(found[0]["Version"]) if found else "none"


@answers(
    "GetParameter",
    "/aws/service/debian/release/13/latest/amd64",
    "the image, of data type aws:ec2:image",
    source="Debian wiki, Cloud/AmazonEC2Image",
)
def test_the_base_images_parameter_resolves(aws: Aws) -> None:
    """Debian wiki, Cloud/AmazonEC2Image: /aws/service/debian/release/13/latest/amd64."""
    found = aws.ssm.get_parameter(Name=debian.PARAMETER)["Parameter"]
    assert (found["Value"], found["DataType"]) == (aws.base, "aws:ec2:image")
    assert aws.image_state(found["Value"]) == "available"


@answers(
    "PutParameter",
    "the name begins with /aws",
    "AccessDeniedException",
    source="SSM API reference, PutParameter: Name",
)
def test_public_parameters_cannot_be_written(aws: Aws, refuses: Refuses) -> None:
    """PutParameter, Name: no path may begin with /aws."""
    asked = {"Name": debian.PARAMETER, "Value": "x", "Type": "String", "Overwrite": True}
    message = refuses("AccessDeniedException", aws.ssm.put_parameter, **asked)
    assert message == f"No access to reserved parameter name: {debian.PARAMETER}."
    refuses("AccessDeniedException", aws.ssm.delete_parameter, Name=debian.PARAMETER)
    refuses("AccessDeniedException", aws.ssm.delete_parameters, Names=[debian.PARAMETER])
    assert aws.base.startswith("ami-")


def test_a_parameter_outlives_the_endpoint_with_its_history_and_tags(start: Start) -> None:
    aws = start()
    image = aws.image()
    tags = [{"Key": "image", "Value": "game-host"}]
    asked = {"Name": CHANNEL, "DataType": "aws:ec2:image", "Type": "String", "Tags": tags}
    aws.ssm.put_parameter(**asked, Value=aws.base)  # type: ignore[arg-type]
    aws.until(lambda: version(aws), "1")
    aws.ssm.put_parameter(Name=CHANNEL, Value=image, Overwrite=True)
    aws.until(lambda: version(aws), "2")
    aws.ssm.label_parameter_version(Name=CHANNEL, ParameterVersion=1, Labels=["first"])
    base, again = aws.base, start()
    found = again.ssm.get_parameter(Name=CHANNEL)["Parameter"]
    assert (found["Value"], found["Version"], found["Type"]) == (image, 2, "String")
    history = again.ssm.get_parameter_history(Name=CHANNEL)["Parameters"]
    assert [(p["Value"], p["Version"]) for p in history] == [(base, 1), (image, 2)]
    assert again.ssm.get_parameter(Name=f"{CHANNEL}:first")["Parameter"]["Value"] == base
    kept = again.ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=CHANNEL)
    assert kept["TagList"] == tags


def test_a_deleted_parameter_stays_away(start: Start, refuses: Refuses) -> None:
    aws = start()
    for name in (CHANNEL, "plain"):
        aws.ssm.put_parameter(Name=name, Value="x", Type="String")
    aws.ssm.delete_parameter(Name=CHANNEL)
    aws.ssm.delete_parameters(Names=["plain"])
    again = start()
    for name in (CHANNEL, "plain"):
        refuses("ParameterNotFound", again.ssm.get_parameter, Name=name)


@answers(
    "PutParameter",
    "an overwrite names no data type",
    "it stays",
    source="SSM API reference, PutParameter: DataType",
)
def test_an_overwrite_keeps_the_data_type(aws: Aws) -> None:
    """PutParameter, DataType: set when the parameter is made."""
    asked = {"Name": CHANNEL, "DataType": "aws:ec2:image", "Type": "String"}
    aws.ssm.put_parameter(**asked, Value=aws.base)  # type: ignore[arg-type]
    aws.until(lambda: version(aws), "1")
    aws.ssm.put_parameter(Name=CHANNEL, Value=aws.base, Overwrite=True)
    aws.until(lambda: version(aws), "2")
    assert aws.ssm.get_parameter(Name=CHANNEL)["Parameter"]["DataType"] == "aws:ec2:image"


@answers(
    "PutParameter",
    "data type aws:ec2:image, and the image does not exist",
    "200 with a version, which is never saved",
    source=AMI_PARAMETERS,
)
def test_an_image_that_is_not_there_is_answered_but_not_saved(aws: Aws, refuses: Refuses) -> None:
    """SSM user guide, AMI parameters: validated after the answer; "the parameter isn't created"."""
    asked = {"Name": CHANNEL, "DataType": "aws:ec2:image", "Type": "String"}
    made = aws.ssm.put_parameter(**asked, Value="ami-0123456789abcdef0")  # type: ignore[arg-type]
    assert made["Version"] == 1
    refuses("ParameterNotFound", aws.ssm.get_parameter, Name=CHANNEL)


@answers(
    "PutParameter",
    "data type aws:ec2:image, and the value is no image id",
    "ValidationException",
    source=AMI_PARAMETERS,
)
def test_a_value_that_is_no_image_id_is_refused(aws: Aws, refuses: Refuses) -> None:
    asked = {"Name": CHANNEL, "DataType": "aws:ec2:image", "Type": "String", "Value": "debian"}
    refuses("ValidationException", aws.ssm.put_parameter, **asked)


@answers(
    "PutParameter",
    "it exists, without Overwrite",
    "ParameterAlreadyExists",
    source="SSM API reference, PutParameter: Overwrite",
)
def test_a_parameter_is_not_overwritten_by_accident(aws: Aws, refuses: Refuses) -> None:
    """PutParameter, Overwrite: ParameterAlreadyExists."""
    asked = {"Name": CHANNEL, "Value": "x", "Type": "String"}
    aws.ssm.put_parameter(**asked)  # type: ignore[arg-type]
    refuses("ParameterAlreadyExists", aws.ssm.put_parameter, **asked)


def test_a_secret_outlives_the_endpoint(start: Start) -> None:
    start().ssm.put_parameter(Name="/game/password", Value="hush", Type="SecureString")
    again = start().ssm
    kept = again.get_parameter(Name="/game/password", WithDecryption=True)["Parameter"]
    assert (kept["Value"], kept["Type"]) == ("hush", "SecureString")


def test_each_region_has_parameters_of_its_own(start: Start, refuses: Refuses) -> None:
    aws = start()
    aws.ssm.put_parameter(Name=CHANNEL, Value="here", Type="String")
    elsewhere = Aws(aws.service, aws.session, region="eu-west-1")
    refuses("ParameterNotFound", elsewhere.ssm.get_parameter, Name=CHANNEL)
    elsewhere.ssm.put_parameter(Name=CHANNEL, Value="there", Type="String")
    again = start()
    assert again.ssm.get_parameter(Name=CHANNEL)["Parameter"]["Value"] == "here"
    elsewhere = Aws(again.service, again.session, region="eu-west-1")
    assert elsewhere.ssm.get_parameter(Name=CHANNEL)["Parameter"]["Value"] == "there"


def put(aws: Aws, **asked: Any) -> int:
    said: dict[str, Any] = {"Name": CHANNEL, "Value": "x", "Type": "String", **asked}
    return aws.ssm.put_parameter(**said)["Version"]


@answers(
    "PutParameter",
    "data type aws:ec2:image, and the image exists",
    "200 at once; the version can be read after the validation",
    source=AMI_PARAMETERS,
    ours="after 0.1 s; --latency parameter=SECONDS",
)
def test_a_version_appears_after_its_validation(start: Start) -> None:
    aws = start(latency="parameter=1.5")
    asked = {"DataType": "aws:ec2:image", "Value": aws.base}
    assert put(aws, **asked) == 1
    assert version(aws) == "none"
    aws.until(lambda: version(aws), "1")
    assert put(aws, **asked, Overwrite=True) == 2
    assert version(aws) == "1"
    aws.until(lambda: version(aws), "2")


def test_an_image_that_is_not_there_never_becomes_the_value(start: Start) -> None:
    aws = start(latency="parameter=0.05")
    put(aws, DataType="aws:ec2:image", Value=aws.base)
    aws.until(lambda: version(aws), "1")
    put(aws, Value=MISSING, Overwrite=True)
    put(aws, Name="/after", DataType="aws:ec2:image", Value=aws.base)
    aws.until(lambda: version(aws, "/after"), "1")
    found = aws.ssm.get_parameter(Name=CHANNEL)["Parameter"]
    assert (found["Value"], found["Version"]) == (aws.base, 1)
    assert put(aws, Value=aws.base, Overwrite=True) == 2


@answers(
    "PutParameter",
    "data type aws:ec2:image, and the image is still pending",
    "200 with a version, which is never saved",
    source=f"{AMI_PARAMETERS}: the AMI must be available",
)
def test_a_pending_image_is_no_value(start: Start) -> None:
    aws = start(latency="image=60,parameter=0.05")
    pending = aws.ec2.create_image(InstanceId=aws.stopped(), Name="slow")["ImageId"]
    put(aws, DataType="aws:ec2:image", Value=pending)
    put(aws, Name="/after", DataType="aws:ec2:image", Value=aws.base)
    aws.until(lambda: version(aws, "/after"), "1")
    assert version(aws) == "none"


@pytest.mark.parametrize("kind", ["text", "aws:ec2:image"])
@answers(
    "PutParameter",
    "Overwrite together with Tags",
    "ValidationException",
    source=f"{PUT}: Tags",
)
def test_an_overwrite_brings_no_tags(aws: Aws, refuses: Refuses, kind: str) -> None:
    asked = {"DataType": kind, "Value": aws.base}
    tags = [{"Key": "a", "Value": "b"}]
    refuses("ValidationException", put, aws=aws, **asked, Overwrite=True, Tags=tags)


@pytest.mark.parametrize("kind", ["text", "aws:ec2:image"])
@answers(
    "PutParameter",
    "a new parameter without a type",
    "ValidationException",
    source=f"{PUT}: Type",
)
def test_a_new_parameter_has_a_type(aws: Aws, refuses: Refuses, kind: str) -> None:
    asked = {"Name": CHANNEL, "Value": aws.base, "DataType": kind, "Overwrite": True}
    refuses("ValidationException", aws.ssm.put_parameter, **asked)


@answers(
    "PutParameter",
    "a value over 4 KB in the standard tier, over 8 KB in the advanced one",
    "ValidationException; Intelligent-Tiering takes the tier that fits",
    source=f"{PUT}: Tier",
)
def test_a_tier_has_its_size(start: Start, refuses: Refuses) -> None:
    aws = start()
    message = refuses("ValidationException", put, aws=aws, Value="x" * 4097)
    assert message.startswith("Standard tier parameters support a maximum parameter value of 4096")
    put(aws, Value="x" * 4096)
    refuses("ValidationException", put, aws=aws, Name="/b", Tier="Advanced", Value="x" * 8193)
    put(aws, Name="/b", Tier="Advanced", Value="x" * 8192)
    put(aws, Name="/c", Tier="Intelligent-Tiering", Value="x" * 4097)
    aws = start()
    tiers = {p["Name"]: p["Tier"] for p in aws.ssm.describe_parameters()["Parameters"]}
    assert (tiers[CHANNEL], tiers["/b"], tiers["/c"]) == ("Standard", "Advanced", "Advanced")
    refuses("ValidationException", put, aws=aws, Name="/b", Tier="Standard", Overwrite=True)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("ValidationException", "no spaces"),
        ("ValidationException", "half/a/path"),
        ("ValidationException", "ssm-mine"),
        ("ValidationException", "x" * 1012),
        ("HierarchyLevelLimitExceededException", "/a" * 16),
    ],
    ids=["space", "no slash", "ssm", "long", "deep"],
)
@answers(
    "PutParameter",
    "a name with other characters, not fully qualified, reserved, too long; over 15 levels",
    "ValidationException; HierarchyLevelLimitExceededException",
    source=f"{PUT}: Name",
)
def test_what_a_parameter_may_be_called(aws: Aws, refuses: Refuses, code: str, name: str) -> None:
    refuses(code, put, aws=aws, Name=name)


@answers(
    "PutParameter",
    "an overwrite with another type",
    "HierarchyTypeMismatchException",
    source=PUT,
)
def test_a_type_stays(aws: Aws, refuses: Refuses) -> None:
    put(aws)
    refuses("HierarchyTypeMismatchException", put, aws=aws, Type="SecureString", Overwrite=True)


@answers(
    "PutParameter",
    "the value does not match AllowedPattern",
    "ParameterPatternMismatchException",
    source=f"{PUT}: AllowedPattern",
)
def test_a_value_matches_its_pattern(start: Start, refuses: Refuses) -> None:
    aws = start()
    put(aws, AllowedPattern="[0-9]+", Value="7")
    aws = start()
    refuses("ParameterPatternMismatchException", put, aws=aws, Value="seven", Overwrite=True)
    refuses("InvalidAllowedPatternException", put, aws=aws, Name="/b", AllowedPattern="[")


@answers(
    "GetParameter",
    "NAME:VERSION or NAME:LABEL; a version that does not exist",
    "that version; ParameterVersionNotFound",
    source="SSM API reference, GetParameter",
)
def test_a_version_is_named_by_number_or_label(aws: Aws, refuses: Refuses) -> None:
    put(aws, Value="one")
    put(aws, Value="two", Overwrite=True)
    aws.ssm.label_parameter_version(Name=CHANNEL, ParameterVersion=1, Labels=["good"])
    found = [
        aws.ssm.get_parameter(Name=f"{CHANNEL}:{which}")["Parameter"]["Value"]
        for which in ("1", "2", "good")
    ]
    assert found == ["one", "two", "one"]
    refuses("ParameterVersionNotFound", aws.ssm.get_parameter, Name=f"{CHANNEL}:7")


@answers(
    "LabelParameterVersion",
    "a label of another version; one that is no label; more than ten; no such version or name",
    "it moves; it is in InvalidLabels; ParameterVersionLabelLimitExceeded; "
    "ParameterVersionNotFound, ParameterNotFound",
    source="SSM API reference, LabelParameterVersion",
)
def test_labels_have_their_rules(aws: Aws, refuses: Refuses) -> None:
    label = aws.ssm.label_parameter_version
    put(aws, Value="one")
    put(aws, Value="two", Overwrite=True)
    label(Name=CHANNEL, ParameterVersion=1, Labels=["good"])
    label(Name=CHANNEL, ParameterVersion=2, Labels=["good"])
    assert aws.ssm.get_parameter(Name=f"{CHANNEL}:good")["Parameter"]["Value"] == "two"
    assert label(Name=CHANNEL, Labels=["aws-mine", "1st"])["InvalidLabels"] == ["aws-mine", "1st"]
    label(Name=CHANNEL, ParameterVersion=2, Labels=[f"l{n}" for n in range(9)])
    asked = {"Name": CHANNEL, "ParameterVersion": 2, "Labels": ["one-more"]}
    refuses("ParameterVersionLabelLimitExceeded", label, **asked)
    refuses("ParameterVersionNotFound", label, Name=CHANNEL, ParameterVersion=9, Labels=["x"])
    refuses("ParameterNotFound", label, Name="/nobody", Labels=["x"])
    refuses("ParameterNotFound", aws.ssm.get_parameter, Name="/nobody")


@answers(
    "PutParameter",
    "a hundred versions, the oldest of which has a label",
    "ParameterMaxVersionLimitExceeded; without a label the oldest goes",
    source="SSM user guide, Working with parameter versions",
)
@pytest.mark.parametrize("kind", ["text", "aws:ec2:image"])
def test_a_hundred_versions_are_kept(start: Start, refuses: Refuses, kind: str) -> None:
    aws = start(latency="parameter=0")
    for n in range(1, 101):
        put(aws, DataType="text", Value=f"v{n}", Overwrite=n > 1)
    put(aws, Value=aws.base, Overwrite=True)
    history = aws.ssm.get_parameter_history(Name=CHANNEL, MaxResults=50)["Parameters"]
    assert history[0]["Version"] == 2
    aws.ssm.label_parameter_version(Name=CHANNEL, ParameterVersion=2, Labels=["kept"])
    asked = {"aws": aws, "DataType": kind, "Value": aws.base, "Overwrite": True}
    refuses("ParameterMaxVersionLimitExceeded", put, **asked)


@answers(
    "GetParametersByPath",
    "Recursive, MaxResults over 10",
    "what is below the path, level by level; ValidationException",
    source="SSM API reference, GetParametersByPath",
)
def test_a_path_lists_what_is_below_it(aws: Aws, refuses: Refuses) -> None:
    for name in ("/a/b", "/a/c", "/a/d/e", "/ab/c"):
        put(aws, Name=name)
    by_path = aws.ssm.get_parameters_by_path
    found = [p["Name"] for p in by_path(Path="/a")["Parameters"]]
    assert sorted(found) == ["/a/b", "/a/c"]
    pages = aws.ssm.get_paginator("get_parameters_by_path").paginate(
        Path="/a", Recursive=True, PaginationConfig={"PageSize": 2}
    )
    assert sorted(p["Name"] for page in pages for p in page["Parameters"]) == [
        "/a/b",
        "/a/c",
        "/a/d/e",
    ]
    refuses("ValidationException", by_path, Path="/a", MaxResults=11)


@answers(
    "DescribeParameters",
    "more than MaxResults",
    "pages with a NextToken",
    source="SSM API reference, DescribeParameters",
)
def test_parameters_come_in_pages(aws: Aws) -> None:
    for n in range(7):
        put(aws, Name=f"/many/{n}")
    path: Any = [{"Key": "Path", "Values": ["/many"]}]
    pages = aws.ssm.get_paginator("describe_parameters").paginate(
        ParameterFilters=path, PaginationConfig={"PageSize": 5}
    )
    assert [len(page["Parameters"]) for page in pages] == [5, 2]


@answers(
    "AddTagsToResource, RemoveTagsFromResource, ListTagsForResource",
    "a parameter; one that does not exist",
    "its tags change and last; InvalidResourceId",
    source="SSM API reference, AddTagsToResource",
)
def test_tags_of_a_parameter_last(start: Start, refuses: Refuses) -> None:
    aws = start()
    put(aws)
    on: dict[str, Any] = {"ResourceType": "Parameter", "ResourceId": CHANNEL}
    tags: list[Any] = [{"Key": k, "Value": "v"} for k in "abc"]
    aws.ssm.add_tags_to_resource(**on, Tags=tags)
    aws.ssm.remove_tags_from_resource(**on, TagKeys=["b"])
    aws = start()
    assert aws.ssm.list_tags_for_resource(**on)["TagList"] == [tags[0], tags[2]]
    nobody = {**on, "ResourceId": "/nobody"}
    refuses("InvalidResourceId", aws.ssm.list_tags_for_resource, **nobody)
