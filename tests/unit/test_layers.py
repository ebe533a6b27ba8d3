"""Imports point one way, and each fence has its gates. Read with ast, so nothing is run.

cli, ui -> flows -> steps, verify -> communicator, scope -> aws -> data -> proc, wait, names, errors
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "amibuild"
FILES = sorted(PACKAGE.rglob("*.py"))

# A file may import from its own layer and from those below it. The longest prefix wins.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("amibuild.cli",),
    (
        "amibuild.bake_machine",
        "amibuild.copying",
        "amibuild.control",
        "amibuild.endpoint",
        "amibuild.guests",
        "amibuild.shutdown",
        "amibuild.ui",
        "amibuild.wording",
    ),
    (
        "amibuild.artifacts",
        "amibuild.attempts",
        "amibuild.bake",
        "amibuild.bakes",
        "amibuild.bench",
        "amibuild.build",
        "amibuild.change",
        "amibuild.dev",
        "amibuild.handoff",
        "amibuild.promote",
        "amibuild.prune",
        "amibuild.reap",
        "amibuild.record",
        "amibuild.resume",
        "amibuild.revoke",
        "amibuild.summing_up",
    ),
    ("amibuild.verify",),
    (
        "amibuild.channels",
        "amibuild.objections",
        "amibuild.registry",
        "amibuild.retention",
        "amibuild.steps",
    ),
    (
        "amibuild.attended",
        "amibuild.communicator",
        "amibuild.lease",
        "amibuild.saved",
        "amibuild.scope",
        "amibuild.stage",
    ),
    ("amibuild.aws",),
    (
        "amibuild.bake_keys",
        "amibuild.channel_lines",
        "amibuild.journal",
        "amibuild.library",
        "amibuild.line",
        "amibuild.lock",
        "amibuild.outputs",
        "amibuild.permission",
        "amibuild.plan",
        "amibuild.policy",
        "amibuild.policy_keys",
        "amibuild.project",
        "amibuild.recipe",
    ),
    (
        "amibuild.errors",
        "amibuild.files",
        "amibuild.names",
        "amibuild.proc",
        "amibuild.secret",
        "amibuild.signals",
        "amibuild.wait",
    ),
)
# The local target is no layer: it stands beside them, behind an HTTP endpoint.
LOCAL = "amibuild.local"
LOCAL_MAY_IMPORT = ("amibuild.errors", "amibuild.names", "amibuild.proc", "amibuild.wait", LOCAL)
LOCAL_GATES = (
    "amibuild.cli.local",
    "amibuild.cli.doctor",
    "amibuild.endpoint",
    "amibuild.shutdown",
    LOCAL,
)

VERSION = "amibuild.__version__"

# It runs on the builder, which has Python alone.
ON_THE_MACHINE = "amibuild.library.every_service.fetch"
# A package of its own there, which does not know that it is in ours here.
PACKAGE_ON_THE_MACHINE = "amibuild.library.every_service.attack"

# Foreign package -> the only places that may import it.
FENCES: dict[str, tuple[str, ...]] = {
    "boto3": ("amibuild.aws",),
    "botocore": ("amibuild.aws",),
    "cryptography": ("amibuild.communicator.envelope", "amibuild.communicator.ssh_keys"),
    "mypy_boto3_ec2": ("amibuild.aws",),
    "fabric": ("amibuild.communicator.ssh", "amibuild.communicator.ssh_link"),
    "paramiko": (
        "amibuild.communicator.ssh",
        "amibuild.communicator.ssh_channel",
        "amibuild.communicator.ssh_keys",
        "amibuild.communicator.ssh_link",
        "amibuild.communicator.ssh_live",
    ),
    "moto": (LOCAL,),
    "rich": ("amibuild.ui",),
    "subprocess": ("amibuild.proc",),
    "typer": ("amibuild.cli",),
    "werkzeug": (LOCAL,),
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, wherever in it, with the line."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.level == 1 and within(module_name(path), (PACKAGE_ON_THE_MACHINE,)):
                continue
            assert node.level == 0, f"{path}:{node.lineno}: imports here are absolute"
            if node.module == "amibuild":
                # `from amibuild import proc` imports amibuild.proc.
                for alias in node.names:
                    yield f"amibuild.{alias.name}", node.lineno
            else:
                yield node.module, node.lineno


def within(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == p or module.startswith(p + ".") for p in prefixes)


def layer(module: str) -> int:
    """The layer's number, 0 at the top; -1 where the module is in none."""
    for number, prefixes in enumerate(LAYERS):
        if within(module, prefixes):
            return number
    return -1


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_every_module_has_a_place(path: Path) -> None:
    module = module_name(path)
    assert module == "amibuild" or module == LOCAL or within(module, (LOCAL,)) or layer(module) >= 0


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_downwards(path: Path) -> None:
    module = module_name(path)
    for imported, line in imports(path):
        ours = within(imported, ("amibuild",)) and imported not in {"amibuild", VERSION}
        if not ours or within(imported, (LOCAL,)):
            continue
        if within(module, (LOCAL,)):
            assert within(imported, LOCAL_MAY_IMPORT), f"{path}:{line}: imports {imported}"
        else:
            assert layer(module) <= layer(imported), f"{path}:{line}: {module} imports {imported}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_nobody_looks_behind_the_local_endpoint(path: Path) -> None:
    module = module_name(path)
    if within(module, LOCAL_GATES):
        return
    reached = [f"{path}:{line}" for name, line in imports(path) if within(name, (LOCAL,))]
    assert reached == []


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_foreign_packages_stay_behind_their_fences(path: Path) -> None:
    module = module_name(path)
    for imported, line in imports(path):
        package = imported.partition(".")[0]
        package = "mypy_boto3_ec2" if package.startswith("mypy_boto3") else package
        gates = FENCES.get(package)
        assert gates is None or within(module, gates), f"{path}:{line}: {module} imports {package}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_only_the_polling_loop_sleeps(path: Path) -> None:
    if module_name(path) in ("amibuild.wait", ON_THE_MACHINE):
        return
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Attribute) and node.attr == "sleep":
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            assert owner != "time", f"{path}:{node.lineno}: time.sleep"
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            assert "sleep" not in [alias.name for alias in node.names], f"{path}:{node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_only_the_command_line_exits(path: Path) -> None:
    if within(module_name(path), ("amibuild.cli", LOCAL, PACKAGE_ON_THE_MACHINE)):
        return
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {
            "sys.exit",
            "exit",
            "os._exit",
        }:
            pytest.fail(f"{path}:{node.lineno}: {ast.unparse(node)}")


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(parsed(path)), path


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_file_outgrows_its_name(path: Path) -> None:
    assert path.stem not in {"utils", "util", "helpers", "common", "misc"}
    assert len(path.read_text().splitlines()) <= 400
