"""The recipe: what the user asked for, in the shape of amibuild.toml.

Every default of amibuild stands here, once. A field's description is what `amibuild schema` shows
in an editor, so each has one.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from amibuild.names import IMAGE_NAME
from amibuild.recipe.document import Origin
from amibuild.recipe.section import Section
from amibuild.recipe.ssh import Ssh
from amibuild.recipe.values import (
    ACCOUNT,
    AMI_ID,
    CHANNEL,
    SUBNET,
    InstanceType,
    Once,
    Price,
    Printable,
    RegionName,
    SecretName,
    StepName,
    Switch,
    Whole,
    endpoint,
    matching,
    network,
)


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
        fields = [field for field in string.Formatter().parse(value) if field[1] is not None]
    except ValueError as error:
        raise ValueError(f"{value!r}: {error}") from error
    names = {name for _, name, _, _ in fields}
    if unknown := sorted(str(name) for name in names - {"image", "channel"}):
        raise ValueError(f"can't fill in {{{unknown[0]}}}, only {{image}} and {{channel}}")
    if converted := [name for _, name, spec, conversion in fields if spec or conversion]:
        raise ValueError(f"takes {{{converted[0]}}} only as it is, with no : or ! behind the name")
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
        matching(
            IMAGE_NAME, "an image name: 2 to 100 lower-case letters, digits and -, no - in front"
        ),
    ] = Field(description="Name of the image; AMIs are called NAME-VERSION.")
    description: str = Field(
        default="", max_length=255, description="One line, shown beside the AMI in EC2."
    )


class SourceFilter(Section):
    name: Printable = Field(min_length=1, description="Name pattern, such as debian-13-amd64-*.")
    owners: Annotated[tuple[str, ...], Once] = Field(
        min_length=1, description="Account ids, or amazon, aws-marketplace or self."
    )


class Source(Section):
    """The image to start from: exactly one of the three ways to name it."""

    ssm: Printable | None = Field(
        default=None, min_length=1, description="SSM parameter that holds the AMI id."
    )
    id: Annotated[str, matching(AMI_ID, "an AMI id such as ami-0123456789abcdef0")] | None = Field(
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
    spot: Switch = Field(
        default=False,
        description="Whether a spot machine is tried first; on demand where none is to be had.",
    )
    spot_max_price: Price | None = Field(
        default=None,
        description="Most that a spot machine may cost, in US dollars an hour; as on demand when "
        "left out.",
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

    @model_validator(mode="after")
    def _price_of_spot(self) -> Builder:
        if self.spot_max_price is not None and not self.spot:
            raise ValueError("spot_max_price is for a spot machine: spot = true")
        return self


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
    profile: Printable | None = Field(
        default=None, min_length=1, description="Profile of ~/.aws/config to use."
    )
    subnet: Annotated[str, matching(SUBNET, "a subnet id such as subnet-0a1b2c3d")] | None = Field(
        default=None,
        description="Subnet to launch in; the default VPC's when left out.",
    )
    instance_profile: Printable | None = Field(
        default=None,
        min_length=1,
        description="Instance profile that lets the machine register with SSM.",
    )
    bucket: Printable | None = Field(
        default=None,
        min_length=3,
        max_length=63,
        description="Bucket for payloads over 64 KB and copies of the manifests.",
    )
    kms_key: Printable | None = Field(
        default=None, min_length=1, description="KMS key for the disks; aws/ebs when left out."
    )
    public_ip: Switch | None = Field(
        default=None,
        description="Whether the machines get a public address; as the subnet says when left out.",
    )
    source_cidr: Annotated[str, AfterValidator(network)] | None = Field(
        default=None,
        description="Who may reach port 22 with the ssh communicator; this host when left out.",
    )
    endpoints: Mapping[str, Annotated[str, AfterValidator(endpoint)]] = Field(
        default_factory=dict, description="Endpoint URL by service, such as ec2, ssm or s3."
    )


def _mirror(value: str) -> str:
    bucket = value.removeprefix("s3://").partition("/")[0]
    if value.startswith("s3://"):
        if not bucket:
            raise ValueError(f"{value!r} names no bucket: s3://BUCKET/PREFIX")
    elif "://" in value or "\\" in value:
        raise ValueError(f"{value!r} is not s3://BUCKET/PREFIX or a folder")
    return value


class Artifacts(Section):
    """Where files that are no packages are looked for first."""

    mirror: Annotated[Printable, AfterValidator(_mirror)] | None = Field(
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
        tuple[Annotated[str, matching(ACCOUNT, "an account id of 12 digits")], ...], Once
    ] = Field(default=(), description="Accounts that may launch it.")


class Channels(Section):
    """The names under which Terraform finds an image."""

    order: Annotated[
        tuple[Annotated[str, matching(CHANNEL, "a channel name of lower-case letters")], ...],
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


class Prune(Section):
    """What `amibuild prune` leaves although nothing uses it."""

    keep: Whole = Field(
        default=5, ge=1, le=1000, description="The newest versions that stay, however old."
    )
    days: Whole = Field(
        default=30, ge=0, le=3650, description="Images younger than this stay, however many."
    )


class Terraform(Section):
    directory: Printable = Field(
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
        default=None, min_length=1, description="Variable of the environment of amibuild."
    )
    ssm: str | None = Field(default=None, min_length=1, description="SSM SecureString parameter.")
    secretsmanager: str | None = Field(
        default=None, min_length=1, description="Name or ARN of a secret of Secrets Manager."
    )
    key: str | None = Field(
        default=None, min_length=1, description="Of one of Secrets Manager that is JSON: the key."
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
    ssh: Ssh = Field(default=Ssh(), description="How the ssh communicator comes to a machine.")
    provision: Provision = Field(default=Provision(), description="What is done to the machine.")
    secrets: Mapping[SecretName, SecretSource] = Field(
        default_factory=dict, description="Where secrets that steps read come from, by name."
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
    prune: Prune = Field(default=Prune(), description="Which images stay although unused.")
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
