"""`--help` is instant, since nothing heavy is imported on the way to it."""

from __future__ import annotations

import sys

import pytest

from amibuild import proc

HEAVY = {"boto3", "botocore", "fabric", "moto", "paramiko", "rich", "testinfra"}
PROBE = """
import sys
from amibuild.cli import main
sys.argv = ["amibuild", {arguments}]
try:
    main.run()
except SystemExit:
    pass
sys.stderr.write(" ".join(sorted(name.partition(".")[0] for name in sys.modules)))
"""


@pytest.mark.parametrize("arguments", ['"--help"', '"bake", "--help"', '"--version"'])
def test_help_imports_nothing_heavy(arguments: str) -> None:
    done = proc.run([sys.executable, "-c", PROBE.format(arguments=arguments)])
    imported = set(done.stderr.decode().split())
    assert HEAVY & imported == set()


def test_the_overview_does_not_wait_for_pydantic() -> None:
    """Typer 0.29 itself needs it to describe a verb's options, but not for the overview."""
    done = proc.run([sys.executable, "-c", PROBE.format(arguments='"--help"')])
    assert "pydantic" not in done.stderr.decode().split()
