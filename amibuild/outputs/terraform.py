"""Terraform's files: which AMI to use and what its services need, as pinned variables.

A review and a revert can see them.
amibuild never runs Terraform, and Terraform never needs amibuild: a file and a name are all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amibuild.library.step import BuildStep, StepKind

TFVARS = "amibuild.auto.tfvars.json"
VARIABLES = "amibuild_variables.tf"

# What Terraform has to know of a service: what to open, attach, snapshot and let the role read.
# `fmt` lines up the equals signs of lines that follow one another.
_SERVICES = """map(object({
    user            = string
    state_directory = string
    memory_mib      = number
    log_group       = string
    ports = list(object({
      name     = string
      port     = number
      protocol = string
      public   = bool
    }))
    volume = object({
      size_gib = number
    })
    backup = object({
      paths = list(string)
      tag   = string
    })
    secrets = list(object({
      name  = string
      id    = string
      store = string
    }))
  }))"""

# Variable -> its type and what it is for. Terraform warns about a value in a tfvars file that
# nothing declares, so both files are written from this one table.
_VARIABLES = {
    "amibuild_ami_id": ("string", "AMI id of the image"),
    "amibuild_ami_name": ("string", "AMI name: image name and version"),
    "amibuild_ami_version": ("string", "Version: UTC date and a counter"),
    "amibuild_digest": ("string", "SHA-256 over what makes the image"),
    "amibuild_region": ("string", "Region that the AMI id belongs to"),
    "amibuild_services": (_SERVICES, "Services of the image, by name; volume and backup or null"),
}


@dataclass(frozen=True)
class Pinned:
    """The image that Terraform shall use."""

    id: str
    name: str
    version: str
    digest: str
    region: str


def tfvars(image: Pinned, steps: Sequence[BuildStep]) -> str:
    """The text of `terraform/amibuild.auto.tfvars.json`, which Terraform reads by itself.

    `steps` are those that the image was made with, or others of the same digest.
    """
    values = {
        "amibuild_ami_id": image.id,
        "amibuild_ami_name": image.name,
        "amibuild_ami_version": image.version,
        "amibuild_digest": image.digest,
        "amibuild_region": image.region,
        "amibuild_services": {
            step.name: _service(step.facts) for step in steps if step.kind is StepKind.SERVICE
        },
    }
    return json.dumps({name: values[name] for name in _VARIABLES}, indent=2) + "\n"


def _service(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The shape of _SERVICES. Nothing that is measured: the same image gives the same file."""
    told = ("user", "state_directory", "memory_mib", "log_group", "ports", "volume", "backup")
    secrets = [
        {"name": secret["name"], "id": secret["id"], "store": secret["from"]}
        for secret in facts["secrets"]
    ]
    return {**{key: facts[key] for key in told}, "secrets": secrets}


def variables() -> str:
    """The text of `terraform/amibuild_variables.tf`: the declarations, formatted as `fmt` does."""
    head = (
        "# Written by amibuild. The values are in amibuild.auto.tfvars.json, which it rewrites.\n"
    )
    # Lines that follow one another have their equals signs in a column, unless one goes on below.
    return head + "".join(
        f'\nvariable "{name}" {{\n  description = "{text}"\n'
        f"  {'type' if '{' in kind else 'type       '} = {kind}\n}}\n"
        for name, (kind, text) in _VARIABLES.items()
    )
