"""Parameter Store: the base image's public parameter, and channels that outlive the endpoint."""

from __future__ import annotations

from amibuild.local import debian
from tests.contract.conftest import Aws, Refuses, Start

CHANNEL = "/amibuild/game-host/nightly/ami-id"
MISSING = "ami-0123456789abcdef0"


def version(aws: Aws, name: str = CHANNEL) -> str:
    """The parameter's version that can be read now; `none` before there is one."""
    found = aws.ssm.get_parameters(Names=[name])["Parameters"]
    return str(found[0]["Version"]) if found else "none"


def test_the_base_images_parameter_resolves(aws: Aws) -> None:
    """Debian wiki, Cloud/AmazonEC2Image: /aws/service/debian/release/13/latest/amd64."""
    found = aws.ssm.get_parameter(Name=debian.PARAMETER)["Parameter"]
    assert (found["Value"], found["DataType"]) == (aws.base, "aws:ec2:image")
    assert aws.image_state(found["Value"]) == "available"


def test_public_parameters_cannot_be_written(aws: Aws, refuses: Refuses) -> None:
    """PutParameter, Name: no path may begin with /aws."""
    asked = {"Name": debian.PARAMETER, "Value": "x", "Type": "String", "Overwrite": True}
    message = refuses("AccessDeniedException", aws.ssm.put_parameter, **asked)
    assert message == f"No access to reserved parameter name: {debian.PARAMETER}."


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


def test_an_overwrite_keeps_the_data_type(aws: Aws) -> None:
    """PutParameter, DataType: set when the parameter is made."""
    asked = {"Name": CHANNEL, "DataType": "aws:ec2:image", "Type": "String"}
    aws.ssm.put_parameter(**asked, Value=aws.base)  # type: ignore[arg-type]
    aws.until(lambda: version(aws), "1")
    aws.ssm.put_parameter(Name=CHANNEL, Value=aws.base, Overwrite=True)
    aws.until(lambda: version(aws), "2")
    assert aws.ssm.get_parameter(Name=CHANNEL)["Parameter"]["DataType"] == "aws:ec2:image"


def test_an_image_that_is_not_there_is_answered_but_not_saved(aws: Aws, refuses: Refuses) -> None:
    """SSM user guide, AMI parameters: validated after the answer; "the parameter isn't created"."""
    asked = {"Name": CHANNEL, "DataType": "aws:ec2:image", "Type": "String"}
    made = aws.ssm.put_parameter(**asked, Value="ami-0123456789abcdef0")  # type: ignore[arg-type]
    assert made["Version"] == 1
    refuses("ParameterNotFound", aws.ssm.get_parameter, Name=CHANNEL)


def test_a_value_that_is_no_image_id_is_refused(aws: Aws, refuses: Refuses) -> None:
    asked = {"Name": CHANNEL, "DataType": "aws:ec2:image", "Type": "String", "Value": "debian"}
    refuses("ValidationException", aws.ssm.put_parameter, **asked)


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
