"""Terraform's files: which AMI to use, as pinned variables that a review and a revert can see.

amibuild never runs Terraform, and Terraform never needs amibuild: a file and a name are all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

TFVARS = "amibuild.auto.tfvars.json"
VARIABLES = "amibuild_variables.tf"

# Variable -> what it is for. Terraform warns about a value in a tfvars file that nothing declares,
# so both files are written from this one table.
_DESCRIPTIONS = {
    "amibuild_ami_id": "AMI id of the image",
    "amibuild_ami_name": "AMI name: image name and version",
    "amibuild_ami_version": "Version: UTC date and a counter",
    "amibuild_digest": "SHA-256 over what makes the image",
    "amibuild_region": "Region that the AMI id belongs to",
}


@dataclass(frozen=True)
class Pinned:
    """The image that Terraform shall use."""

    id: str
    name: str
    version: str
    digest: str
    region: str


def tfvars(image: Pinned) -> str:
    """The text of `terraform/amibuild.auto.tfvars.json`, which Terraform reads by itself."""
    values = {
        "amibuild_ami_id": image.id,
        "amibuild_ami_name": image.name,
        "amibuild_ami_version": image.version,
        "amibuild_digest": image.digest,
        "amibuild_region": image.region,
    }
    return json.dumps({name: values[name] for name in _DESCRIPTIONS}, indent=2) + "\n"


def variables() -> str:
    """The text of `terraform/amibuild_variables.tf`: the declarations, formatted as `fmt` does."""
    head = (
        "# Written by amibuild. The values are in amibuild.auto.tfvars.json, which it rewrites.\n"
    )
    return head + "".join(
        f'\nvariable "{name}" {{\n  description = "{text}"\n  type        = string\n}}\n'
        for name, text in _DESCRIPTIONS.items()
    )
