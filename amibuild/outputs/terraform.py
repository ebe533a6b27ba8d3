"""Terraform's files: which AMI to use and what its services need, as pinned variables.

A review and a revert can see them.
amibuild never runs Terraform, and Terraform never needs amibuild: a file and a name are all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from amibuild.library.step import BuildStep, StepKind
from amibuild.outputs.service_record import ServiceRecord
from amibuild.recipe.model import Channels

TFVARS = "amibuild.auto.tfvars.json"
VARIABLES = "amibuild_variables.tf"
# Folders below that of the two files, which the module finds from where it is itself.
MODULE = "modules/amibuild"
EXAMPLE = "examples/host"

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
    "amibuild_image": ("string", "Name of the image, as its tag amibuild:image has it"),
    "amibuild_channels": ("list(string)", "Channels, from the newest image to the safest"),
    "amibuild_channel_parameter": ("string", "Name of a channel's parameter, with {channel} in it"),
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
    image: str


def tfvars(image: Pinned, services: Mapping[str, Mapping[str, Any]], channels: Channels) -> str:
    """The text of `terraform/amibuild.auto.tfvars.json`, which Terraform reads by itself.

    `services` are those of the image, in the shape of _SERVICES.
    """
    values = {
        "amibuild_ami_id": image.id,
        "amibuild_ami_name": image.name,
        "amibuild_ami_version": image.version,
        "amibuild_digest": image.digest,
        "amibuild_region": image.region,
        "amibuild_image": image.image,
        "amibuild_channels": list(channels.order),
        "amibuild_channel_parameter": channels.parameter.format(
            image=image.image, channel="{channel}"
        ),
        "amibuild_services": services,
    }
    return json.dumps({name: values[name] for name in _VARIABLES}, indent=2) + "\n"


def services_of_steps(steps: Iterable[BuildStep]) -> dict[str, dict[str, Any]]:
    """Of the steps that the image was made with, or others of the same digest."""
    return {step.name: _service(step.facts) for step in steps if step.kind is StepKind.SERVICE}


def services_of_records(records: Mapping[str, ServiceRecord]) -> dict[str, dict[str, Any]]:
    """The same from the manifest of an image."""
    return {name: _service(record.model_dump()) for name, record in records.items()}


def _service(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The shape of _SERVICES. Nothing that is measured: the same image gives the same file."""
    port = ("name", "port", "protocol", "public")
    return {
        **{key: facts[key] for key in ("user", "state_directory", "memory_mib", "log_group")},
        "ports": [{key: one[key] for key in port} for one in facts["ports"]],
        "volume": facts["volume"],
        "backup": facts["backup"],
        "secrets": [
            # A step says where it is `from`, as service.toml does, and a manifest says `store`.
            {"name": one["name"], "id": one["id"], "store": one.get("store") or one["from"]}
            for one in facts["secrets"]
        ],
    }


def module() -> dict[str, str]:
    """Path below MODULE -> text: which image to use, checked, and what its services need."""
    return _texts("module")


def example() -> dict[str, str]:
    """Path below EXAMPLE -> text: a host to begin from, which is the user's once it is there."""
    return _texts("example")


def _texts(folder: str, below: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    place = files("amibuild.outputs").joinpath("handoff", folder, *below.split("/"))
    for entry in sorted(place.iterdir(), key=lambda entry: entry.name):
        path = f"{below}/{entry.name}".lstrip("/")
        if entry.is_dir():
            found |= _texts(folder, path)
        else:
            found[path] = entry.read_text()
    return found


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
