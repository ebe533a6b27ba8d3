"""What stands around the runbook's blocks: how a person gets the machine, and an image of it.

The calls ask for what the bake's own ask for (aws/ec2.py, steps/capture.py), so that the image is
as private and is found by the same tags.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from amibuild.names import Tag
from amibuild.outputs.manifest import Manifest

LOCAL = "local"
DEFAULT_RECIPE = "amibuild.toml"
FOLDER = "(`terraform/`, or what `[terraform] directory` names)"


def launch(m: Manifest) -> list[str]:
    """Up to the root shell that the blocks are pasted into."""
    region, source = m.image.region, m.source.ami_id
    disk = f"Ebs={{VolumeSize={m.image.size_gib},VolumeType=gp3,Encrypted=true}}"
    return [
        *(_local_source(m) if m.bake.target == LOCAL else []),
        f"Launch an instance from the source AMI `{source}` as the bake did: with an",
        f"encrypted root volume of {m.image.size_gib} GiB, and IMDSv2 required. TYPE is one of the",
        *_own_settings(m),
        "",
        "```sh",
        f"device=$(aws ec2 describe-images --region {region} --image-ids {source} \\",
        "    --query 'Images[0].RootDeviceName' --output text)",
        f"aws ec2 run-instances --region {region} --image-id {source} --instance-type TYPE \\",
        f'    --block-device-mappings "DeviceName=$device,{disk}" \\',
        "    --metadata-options HttpTokens=required,HttpEndpoint=enabled,HttpPutResponseHopLimit=1",
        "```",
        "",
        *_shell(m),
    ]


def _local_source(m: Manifest) -> list[str]:
    return [
        f"The target was `{LOCAL}`: the source AMI and the image are in one data folder",
        "(`AMIBUILD_DATA_DIR`) on the machine that baked, and nowhere else. There, this keeps the",
        "endpoint running and tells the AWS CLI where it is; one before 2.13 wants",
        '`--endpoint-url "$AWS_ENDPOINT_URL"` in each call, too:',
        "",
        "```sh",
        'eval "$(amibuild local up)"',
        "```",
        "",
    ]


def _own_settings(m: Manifest) -> list[str]:
    if m.bake.target == LOCAL:
        return ["recipe's `builder.instance_types`."]
    return [
        "recipe's `builder.instance_types`; where its `[aws]` names a `subnet` or a `kms_key`, add",
        "`--subnet-id …`, and `KmsKeyId=…` beside `Encrypted=true`. For SSH add `--key-name …` and",
        "`--security-group-ids …` of a group that lets you in on port 22.",
    ]


def _shell(m: Manifest) -> list[str]:
    if m.bake.target == LOCAL:
        return [
            "Open a root shell in it with `amibuild local shell INSTANCE`. It also runs a block",
            "that is in a file: `amibuild local shell INSTANCE <FILE`.",
        ]
    return [
        "Open a root shell on it (`sudo -i`), and keep that one to the end: a step may close port",
        "22 to new connections.",
    ]


def capture(m: Manifest) -> list[str]:
    """From the last block to an image that the verbs and Terraform know."""
    region = m.image.region
    tags: Mapping[str, str] = {
        Tag.IMAGE: m.image.image,
        Tag.VERSION: "VERSION",
        Tag.DIGEST: m.digest,
        Tag.SOURCE_AMI: m.source.ami_id,
    }
    words = ",".join(f"{{Key={key},Value={value}}}" for key, value in tags.items())
    return [
        "### Then: capture",
        "",
        "Shut the machine down, wait until it is stopped, and make the image from outside. By its",
        "tags `amibuild images` and `amibuild verify` find it; VERSION is a new one of your own,",
        f"such as `{m.image.version}-by-hand`:",
        "",
        "```sh",
        f"aws ec2 stop-instances --region {region} --instance-ids INSTANCE",
        f"aws ec2 wait instance-stopped --region {region} --instance-ids INSTANCE",
        f"image=$(aws ec2 create-image --region {region} --instance-id INSTANCE \\",
        f"    --name {shlex.quote(m.image.image)}-VERSION --query ImageId --output text \\",
        f"    --tag-specifications 'ResourceType=image,Tags=[{words}]')",
        f'aws ec2 wait image-available --region {region} --image-ids "$image"',
        f"aws ec2 terminate-instances --region {region} --instance-ids INSTANCE",
        f'amibuild verify --target {m.bake.target}{recipe_option(m)} "$image"',
        "```",
        "",
        "`verify` marks it as verified when it passes, and the recipe is as it was for this bake.",
        "For Terraform, put its id in place of `amibuild_ami_id` in `amibuild.auto.tfvars.json` of",
        f"the recipe's Terraform folder {FOLDER}.",
        "",
    ]


def recipe_option(m: Manifest) -> str:
    """What a verb needs to find a recipe of another name."""
    named = m.recipe.path != DEFAULT_RECIPE
    return f" --recipe {shlex.quote(m.recipe.path)}" if named else ""


def recipe_argument(m: Manifest) -> str:
    """The same for verbs that take it as an argument."""
    return f" {shlex.quote(m.recipe.path)}" if m.recipe.path != DEFAULT_RECIPE else ""
