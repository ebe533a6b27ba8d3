"""The recipe: what the user asked for, in the shape of amibuild.toml.

Every default of amibuild stands here, once. A field's description is what `amibuild schema` shows
in an editor, so each has one.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from amibuild.names import IMAGE_NAME
from amibuild.recipe.document import Origin

T = TypeVar("T")

AMI_ID = re.compile(r"ami-[0-9a-f]{8}(?:[0-9a-f]{9})?")
ACCOUNT = re.compile(r"\d{12}")
CHANNEL = re.compile(r"[a-z][a-z0-9-]{0,31}")
INSTANCE_TYPE = re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+")
SUBNET = re.compile(r"subnet-[0-9a-f]{8}(?:[0-9a-f]{9})?")
URL = re.compile(r"https?://[^\s/]+(?:/\S*)?")
REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-\d")
STEP_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
SECRET_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
NETWORK = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}/\d{1,2}")


class Section(BaseModel):
    """A table of the recipe. Nothing in it can be changed, and a key that it lacks is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=False)


def _matching(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(value: str) -> str:
        if pattern.fullmatch(value) is None:
            raise ValueError(f"{value!r} is not {what}")
        return value

    return AfterValidator(check)


def _without_repeats(values: tuple[T, ...]) -> tuple[T, ...]:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"{value!r} stands here twice")
    return values


Whole = Annotated[int, Field(strict=True)]
Switch = Annotated[bool, Field(strict=True)]
StepName = Annotated[
    str, _matching(STEP_NAME, "a name of lower-case words joined by -, such as idle-stop")
]
SecretName = Annotated[str, _matching(SECRET_NAME, "a name of lower-case words joined by _")]
InstanceType = Annotated[str, _matching(INSTANCE_TYPE, "an instance type such as c7i.large")]
RegionName = Annotated[str, _matching(REGION, "a region such as us-east-1")]
Once = AfterValidator(_without_repeats)


def _parameter_kind(value: object) -> object:
    """Refused here, since a union of types would report one mistake four times."""
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return value
    raise ValueError("must be a string, a whole number, true or false, or a list of strings")


ParameterValue = bool | int | str | tuple[str, ...]
Parameter = Annotated[ParameterValue, BeforeValidator(_parameter_kind)]
"""What a step's parameter may be; the provisioner says which of these it wants."""


def _channel_parameter(value: str) -> str:
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(value)} - {None}
    except ValueError as error:
        raise ValueError(f"{value!r}: {error}") from error
    if unknown := sorted(str(name) for name in names - {"image", "channel"}):
        raise ValueError(f"can't fill in {{{unknown[0]}}}, only {{image}} and {{channel}}")
    if "channel" not in names:
        raise ValueError("needs {channel}, or all channels would be one")
    if not value.startswith("/"):
        raise ValueError("must begin with /")
    return value


class Communicator(StrEnum):
    SSM = "ssm"
    SSH = "ssh"


class Target(StrEnum):
    LOCAL = "local"
    AWS = "aws"


class Image(Section):
    name: Annotated[
        str,
        _matching(
            IMAGE_NAME, "an image name: 2 to 100 lower-case letters, digits and -, no - in front"
        ),
    ] = Field(description="Name of the image; AMIs are called NAME-VERSION.")
    description: str = Field(
        default="", max_length=255, description="One line, shown beside the AMI in EC2."
    )


class SourceFilter(Section):
    name: str = Field(min_length=1, description="Name pattern, such as debian-13-amd64-*.")
    owners: Annotated[tuple[str, ...], Once] = Field(
        min_length=1, description="Account ids, or amazon, aws-marketplace or self."
    )


class Source(Section):
    """The image to start from: exactly one of the three ways to name it."""

    ssm: str | None = Field(
        default=None, min_length=1, description="SSM parameter that holds the AMI id."
    )
    id: Annotated[str, _matching(AMI_ID, "an AMI id such as ami-0123456789abcdef0")] | None = Field(
        default=None, description="The AMI id itself."
    )
    filter: SourceFilter | None = Field(
        default=None, description="The newest AMI of these owners with a name like this."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Source:
        given = [k for k in ("ssm", "id", "filter") if getattr(self, k) is not None]
        if len(given) != 1:
            seen = f"has {' and '.join(given)}" if given else "has none of them"
            raise ValueError(f"needs exactly one of ssm, id and filter, and {seen}")
        return self


class Builder(Section):
    """The machine that the image is made on."""

    instance_types: Annotated[tuple[InstanceType, ...], Once] = Field(
        default=("c7i.large", "c6i.large"),
        min_length=1,
        description="Tried in this order, over all zones, while capacity is short.",
    )
    volume_gib: Whole = Field(
        default=8, ge=1, le=16384, description="Size of the root disk, which its file system fills."
    )
    communicator: Communicator = Field(
        default=Communicator.SSM, description="How commands reach the machine: ssm or ssh."
    )
    launch_timeout_s: Whole = Field(
        default=300, ge=10, le=3600, description="How long EC2 may take to start the machine."
    )
    connect_timeout_s: Whole = Field(
        default=600, ge=10, le=3600, description="How long the machine may take to accept commands."
    )
    shutdown_timeout_s: Whole = Field(
        default=600, ge=10, le=3600, description="How long a clean shutdown may take."
    )
    capture_timeout_s: Whole = Field(
        default=7200,
        ge=60,
        le=86400,
        description="How long EC2 may take to make the image; hours have been seen.",
    )


class Provision(Section):
    """What is done to the machine, in this order: the steps, then the services."""

    steps: Annotated[tuple[StepName, ...], Once] = Field(
        default=("os",), description="Provisioners: folders below provisioners/."
    )
    services: Annotated[tuple[StepName, ...], Once] = Field(
        default=(), description="Services: folders below provisioners/services/."
    )
    params: Mapping[str, Mapping[str, Parameter]] = Field(
        default_factory=dict, description="Parameters of a step, in a table named after it."
    )


class Verify(Section):
    """The fresh machine that proves the image."""

    max_age_days: Whole = Field(
        default=7,
        ge=0,
        le=365,
        description="An unchanged image older than this is baked anew, for security updates.",
    )
    instance_types: Annotated[tuple[InstanceType, ...], Once] = Field(
        default=(), description="Machines to prove it on; the builder's when empty."
    )
    timeout_s: Whole = Field(
        default=900, ge=60, le=7200, description="How long booting and checking may take."
    )


class Aws(Section):
    """Where in AWS, and by which means."""

    region: RegionName = Field(default="us-east-1", description="Region that the bake runs in.")
    profile: str | None = Field(
        default=None, min_length=1, description="Profile of ~/.aws/config to use."
    )
    subnet: Annotated[str, _matching(SUBNET, "a subnet id such as subnet-0a1b2c3d")] | None = Field(
        default=None,
        description="Subnet to launch in; the default VPC's when left out.",
    )
    instance_profile: str | None = Field(
        default=None,
        min_length=1,
        description="Instance profile that lets the machine register with SSM.",
    )
    bucket: str | None = Field(
        default=None,
        min_length=3,
        max_length=63,
        description="Bucket for payloads over 64 KB and copies of the manifests.",
    )
    kms_key: str | None = Field(
        default=None, min_length=1, description="KMS key for the disks; aws/ebs when left out."
    )
    public_ip: Switch | None = Field(
        default=None,
        description="Whether the machines get a public address; as the subnet says when left out.",
    )
    source_cidr: Annotated[str, _matching(NETWORK, "a network such as 203.0.113.7/32")] | None = (
        Field(
            default=None,
            description="Who may reach port 22 with the ssh communicator; this host when left out.",
        )
    )
    endpoints: Mapping[str, Annotated[str, _matching(URL, "a URL")]] = Field(
        default_factory=dict, description="Endpoint URL by service, such as ec2, ssm or s3."
    )


def _mirror(value: str) -> str:
    bucket = value.removeprefix("s3://").partition("/")[0]
    if value.startswith("s3://"):
        if not bucket:
            raise ValueError(f"{value!r} names no bucket: s3://BUCKET/PREFIX")
    elif "://" in value:
        raise ValueError(f"{value!r} is not s3://BUCKET/PREFIX or a folder")
    return value


class Artifacts(Section):
    """Where files that are no packages are looked for first."""

    mirror: Annotated[str, AfterValidator(_mirror)] | None = Field(
        default=None,
        min_length=1,
        description="s3://BUCKET/PREFIX or a folder beside the recipe; see `artifacts mirror`.",
    )


class Publish(Section):
    """Where the proven image goes."""

    regions: Annotated[tuple[RegionName, ...], Once] = Field(
        default=(), description="Regions to copy it to; the bake's own needs no mention."
    )
    accounts: Annotated[
        tuple[Annotated[str, _matching(ACCOUNT, "an account id of 12 digits")], ...], Once
    ] = Field(default=(), description="Accounts that may launch it.")


class Channels(Section):
    """The names under which Terraform finds an image."""

    order: Annotated[
        tuple[Annotated[str, _matching(CHANNEL, "a channel name of lower-case letters")], ...],
        Once,
    ] = Field(
        default=("nightly", "staging", "production"),
        min_length=1,
        description="Channels, from the newest image to the safest.",
    )
    parameter: Annotated[str, AfterValidator(_channel_parameter)] = Field(
        default="/amibuild/{image}/{channel}/ami-id",
        description="SSM parameter of a channel; {image} and {channel} are filled in.",
    )


class Terraform(Section):
    directory: str = Field(
        default="terraform", min_length=1, description="Folder that the handoff files go to."
    )


class TargetChoice(Section):
    default: Target = Field(
        default=Target.LOCAL,
        description="Target of verbs called without --target: local or aws.",
    )


class SecretSource(Section):
    """Where the value of a secret comes from: exactly one of the three."""

    env: str | None = Field(
        default=None, min_length=1, description="Variable of the environment that amibuild runs in."
    )
    ssm: str | None = Field(
        default=None, min_length=1, description="SSM parameter of type SecureString."
    )
    secretsmanager: str | None = Field(
        default=None, min_length=1, description="Name or ARN of a secret of Secrets Manager."
    )
    key: str | None = Field(
        default=None,
        min_length=1,
        description="Of a secret of Secrets Manager that is JSON: the key of the value.",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> SecretSource:
        given = [k for k in ("env", "ssm", "secretsmanager") if getattr(self, k) is not None]
        if len(given) != 1:
            seen = f"has {' and '.join(given)}" if given else "has none of them"
            raise ValueError(f"needs exactly one of env, ssm and secretsmanager, and {seen}")
        if self.key is not None and self.secretsmanager is None:
            raise ValueError("key is for a secret of Secrets Manager")
        return self


class Recipe(Section):
    """A whole amibuild.toml."""

    image: Image = Field(description="What the image is called.")
    source: Source = Field(
        default=Source(ssm="/aws/service/debian/release/13/latest/amd64"),
        description="The image to start from; Debian 13 when left out.",
    )
    builder: Builder = Field(default=Builder(), description="The machine the image is made on.")
    provision: Provision = Field(default=Provision(), description="What is done to the machine.")
    secrets: Mapping[SecretName, SecretSource] = Field(
        default_factory=dict,
        description="Where the secrets that steps read come from, by name. Never their values.",
    )
    verify: Verify = Field(default=Verify(), description="The fresh machine that proves the image.")
    aws: Aws = Field(default=Aws(), description="Where in AWS, and by which means.")
    artifacts: Artifacts = Field(
        default=Artifacts(), description="Where files that are no packages are looked for first."
    )
    publish: Publish = Field(default=Publish(), description="Where the proven image goes.")
    channels: Channels = Field(
        default=Channels(), description="The names under which Terraform finds an image."
    )
    terraform: Terraform = Field(default=Terraform(), description="The handoff to Terraform.")
    target: TargetChoice = Field(
        default=TargetChoice(), description="Where verbs work when the command line does not say."
    )

    _origin: Origin = Origin()

    @property
    def origin(self) -> Origin:
        """The file it was read from, for the mistakes that only the library can see."""
        return self._origin

    @classmethod
    def read_from(cls, origin: Origin, recipe: Recipe) -> Recipe:
        """The same recipe, knowing where it was read."""
        copy = recipe.model_copy()
        copy._origin = origin
        return copy


def recipe_schema() -> dict[str, Any]:
    """JSON Schema of amibuild.toml, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Recipe.model_json_schema(),
        "title": "amibuild recipe",
    }
