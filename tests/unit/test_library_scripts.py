"""The bundled scripts are clean, and what they are told to fetch is pinned."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.library.load import bundled_provisioners

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = sorted([*bundled_provisioners().rglob("*.sh"), *(REPOSITORY / "amibuild").rglob("*.sh")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_shellcheck_finds_nothing(script: Path) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = proc.run([shellcheck, "--shell=bash", script], check=False)
    assert done.exit_code == 0, done.text


def test_the_agents_package_is_pinned_by_version_and_checksum() -> None:
    text = (bundled_provisioners() / "ssm-agent/provisioner.toml").read_text()
    parameters = tomllib.loads(text)["parameters"]
    assert re.fullmatch(r"\d+(\.\d+){3}", parameters["version"]["default"])
    assert re.fullmatch(r"[0-9a-f]{64}", parameters["sha256"]["default"])
    assert "{version}" in parameters["url"]["default"]
    assert parameters["url"]["default"].startswith("https://")
