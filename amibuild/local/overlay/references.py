"""DescribeImageReferences: which instances, launch templates and parameters name an image.

Source: EC2 API reference, DescribeImageReferences and ResourceTypeOption: of instances those in
every state, of a launch template its 10 latest versions, unless the request says otherwise.
"""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.responses import EC2Response

from amibuild.local.overlay.desk import Refusal
from amibuild.local.overlay.launching import check_image_id
from amibuild.local.overlay.paging import sorted_page
from amibuild.local.overlay.parameters import IMAGE_TYPE

_INSTANCE, _TEMPLATE, _PARAMETER = "ec2:Instance", "ec2:LaunchTemplate", "ssm:Parameter"
# Image Builder is not here, so nothing of it names an image.
_KINDS = (
    _INSTANCE,
    _TEMPLATE,
    _PARAMETER,
    "imagebuilder:ImageRecipe",
    "imagebuilder:ContainerRecipe",
)
_STATES = ("pending", "running", "shutting-down", "terminated", "stopping", "stopped")
_OPTION = {_INSTANCE: "state-name", _TEMPLATE: "version-depth"}
_DEPTH, _DEEPEST = 10, 10_000
_MOST_IMAGES = 10


def _wanted(params: dict[str, Any]) -> dict[str, list[str]]:
    """Kind of resource -> the values of its option, empty for the default. Raises: Refusal."""
    everything = params.get("IncludeAllResourceTypes")
    asked = params.get("ResourceTypes", [])
    if not everything and not asked:
        raise Refusal(
            "MissingParameter",
            "Either IncludeAllResourceTypes or ResourceTypes must be specified.",
        )
    wanted: dict[str, list[str]] = {kind: [] for kind in _KINDS} if everything else {}
    for one in asked:
        kind = one.get("ResourceType")
        if kind not in _KINDS:
            raise _invalid(kind, "ResourceType")
        wanted[kind] = []
        for option in one.get("ResourceTypeOptions", []):
            if option.get("OptionName") != _OPTION.get(kind):
                raise _invalid(option.get("OptionName"), "OptionName")
            wanted[kind] = option.get("OptionValues", [])
    for state in wanted.get(_INSTANCE, []):
        if state not in _STATES:
            raise _invalid(state, "state-name")
    for depth in wanted.get(_TEMPLATE, []):
        if not depth.isdecimal() or not 1 <= int(depth) <= _DEEPEST:
            raise _invalid(depth, "version-depth")
    return wanted


def _invalid(value: Any, parameter: str) -> Refusal:
    return Refusal("InvalidParameterValue", f"Invalid value '{value}' for {parameter}.")


def _arns(backend: Any, image_id: str, kind: str, values: list[str]) -> list[str]:
    if kind == _INSTANCE:
        return _instances(backend, image_id, values)
    if kind == _TEMPLATE:
        return _templates(backend, image_id, values)
    return _parameters(backend, image_id) if kind == _PARAMETER else []


def _instances(backend: Any, image_id: str, states: list[str]) -> list[str]:
    return [
        f"{_ec2_arn(backend)}:instance/{instance.id}"
        for instance in backend.all_instances()
        if instance.image_id == image_id and instance.state in (states or _STATES)
    ]


def _templates(backend: Any, image_id: str, depth: list[str]) -> list[str]:
    latest = int(depth[0]) if depth else _DEPTH
    return [
        f"{_ec2_arn(backend)}:launch-template/{template.id}"
        for template in backend.launch_templates.values()
        if image_id in {v.data.get("ImageId") for v in template.versions[-latest:]}
    ]


def _parameters(backend: Any, image_id: str) -> list[str]:
    from moto.ssm.models import ssm_backends

    books = ssm_backends[backend.account_id][backend.region_name]
    latest = [versions[-1] for versions in books._parameters.values() if versions]
    return [
        f"arn:aws:ssm:{backend.region_name}:{backend.account_id}:parameter/{p.name.lstrip('/')}"
        for p in latest
        # The public ones are AWS's, not the caller's.
        if p.data_type == IMAGE_TYPE and p.value == image_id and not p.name.startswith("/aws/")
    ]


def _ec2_arn(backend: Any) -> str:
    return f"arn:aws:ec2:{backend.region_name}:{backend.account_id}"


class ReferenceResponses(EC2Response):
    params: dict[str, Any]

    def describe_image_references(self) -> ActionResult:
        backend, params = self.ec2_backend, self.params
        ids = params["ImageIds"]
        for id_ in ids:
            check_image_id(id_)
        if not 1 <= len(ids) <= _MOST_IMAGES:
            raise Refusal(
                "InvalidParameterValue", f"From 1 to {_MOST_IMAGES} image ids can be given."
            )
        wanted = _wanted(params)
        self.error_on_dryrun()
        found: list[dict[str, str]] = []
        for id_ in dict.fromkeys(ids):
            for kind, values in wanted.items():
                arns = _arns(backend, id_, kind, values)
                found += [{"ImageId": id_, "ResourceType": kind, "Arn": arn} for arn in arns]
        shown, token = sorted_page(found, params, lambda r: f"{r['ImageId']} {r['Arn']}", least=5)
        return ActionResult({"ImageReferences": shown, **({"NextToken": token} if token else {})})
