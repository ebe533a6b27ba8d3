"""Launch templates: what one adds to a launch.

Sources: EC2 API reference, RunInstances (LaunchTemplate: "any parameters that you specify override
the same parameters in the launch template") and "Error codes". EC2 marks what came of a template
with the tags aws:ec2launchtemplate:id and :version.
"""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.responses import EC2Response

from amibuild.local.overlay.desk import Refusal

MARK = "aws:ec2launchtemplate"


def with_template(backend: Any, params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The request with what its template adds, and the tags that tell of it."""
    asked = params.get("LaunchTemplate")
    if not asked:
        return params, {}
    template = _find(backend, asked)
    version = _version(template, asked.get("Version", "$Default"))
    said = {k: v for k, v in params.items() if k != "LaunchTemplate"}
    data = {k: v for k, v in version.data.items() if v is not None}
    if "UserData" in data:
        data["UserData"] = str(data["UserData"])  # moto has a type of its own for base64
    merged = {**data, **said}
    merged["TagSpecifications"] = _merged_tags(
        version.data.get("TagSpecifications", []), params.get("TagSpecifications", [])
    )
    return merged, {f"{MARK}:id": template.id, f"{MARK}:version": str(version.number)}


def _find(backend: Any, asked: dict[str, Any]) -> Any:
    id_, name = asked.get("LaunchTemplateId"), asked.get("LaunchTemplateName")
    if bool(id_) == bool(name):
        raise Refusal(
            "MissingParameter" if not id_ else "InvalidParameterCombination",
            "The request must contain either the launch template's ID or its name",
        )
    for template in backend.launch_templates.values():
        if template.id == id_ or template.name == name:
            return template
    if id_:
        raise Refusal(
            "InvalidLaunchTemplateId.NotFound",
            f"The specified launch template, with template ID {id_}, does not exist.",
        )
    raise Refusal(
        "InvalidLaunchTemplateName.NotFoundException",
        f"The specified launch template, with template name {name}, does not exist.",
    )


def _version(template: Any, asked: str) -> Any:
    number = {
        "$Latest": str(template.versions[-1].number),
        "$Default": str(template.default_version_number),
    }.get(asked, asked)
    for version in template.versions:
        if str(version.number) == number:
            return version
    raise Refusal(
        "InvalidLaunchTemplateId.VersionNotFound",
        f"Could not find launch template version {asked} of {template.id}",
    )


def _merged_tags(below: list[dict[str, Any]], above: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By what they are on; the request's own values win."""
    kinds: dict[str, dict[str, str]] = {}
    for specification in (*below, *above):
        tags = {tag["Key"]: tag.get("Value", "") for tag in specification.get("Tags", [])}
        kinds.setdefault(specification["ResourceType"], {}).update(tags)
    return [
        {"ResourceType": kind, "Tags": [{"Key": k, "Value": v} for k, v in tags.items()]}
        for kind, tags in kinds.items()
        if kind != "launch-template"  # moto keeps the template's own tags with its data
    ]


class TemplateResponses(EC2Response):
    params: dict[str, Any]

    def create_launch_template_version(self) -> ActionResult:
        _find(self.ec2_backend, self.params)
        self.error_on_dryrun()
        result: ActionResult = super().create_launch_template_version()
        return result
