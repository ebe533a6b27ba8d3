"""Packs the checks of all steps, with pytest and testinfra, into one file for the machine.

The machine has no pip and perhaps no network, and each command to it takes time: so the checks
are one Python archive. It may travel in pieces of 45 KB, and runs under emulation where compiling
a module takes longer than running it, so it is kept small: only what is imported, without
docstrings, comments and annotations of functions.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from amibuild.library.step import BuildStep

# pytest imports its plugins by name, so that no import statement tells.
PLUGINS = """
    approx assertion fixtures helpconfig main mark monkeypatch python reports runner skipping tmpdir
"""
ROOTS = (
    "pytest",
    "testinfra.host",
    "testinfra.backend.local",
    *(f"_pytest.{plugin}" for plugin in PLUGINS.split()),
)
OURS = frozenset({"_pytest", "iniconfig", "packaging", "pluggy", "pytest", "testinfra"})
# Classes that are named but never made: colours, which nobody sees and which take 4.6 MB, the
# reporter, whose plugin is left out, paths as pytest had them ten years ago.
STAND_INS = {
    "_pytest/terminal.py": "class TerminalReporter: pass",
    "py.py": "class path:\n    class local: pass",
    "pygments/__init__.py": "",
    "pygments/util.py": "",
    "pygments/formatters/__init__.py": "",
    "pygments/formatters/terminal.py": "class TerminalFormatter: pass",
    "pygments/lexer.py": "class Lexer: pass",
    "pygments/lexers/__init__.py": "",
    "pygments/lexers/diff.py": "class DiffLexer: pass",
    "pygments/lexers/python.py": "class PythonLexer: pass",
}
# Read only when a configuration names plugins that it requires, and ours does not.
NEVER_IMPORTED = frozenset({"packaging.requirements"})
# pytest's own front imports all of pytest; most checks need `mark` and `raises` of it.
LAZY_FRONT = """
import importlib
WHERE = %r
def __getattr__(name):
    if name not in WHERE:
        raise AttributeError(name)
    module, own_name = WHERE[name]
    value = globals()[name] = getattr(importlib.import_module(module), own_name)
    return value
"""
MAIN = """
import io, sys, tarfile, tempfile, time
started = time.monotonic()
sys.dont_write_bytecode = True
# Python 3.11.2 of Debian 12 has no filters.
safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
with tempfile.TemporaryDirectory(prefix="checks-") as root:
    for name in ("lib", "steps"):
        packed = io.BytesIO(__loader__.get_data(f"{__loader__.archive}/{name}.tar.xz"))
        with tarfile.open(fileobj=packed) as tar:
            tar.extractall(f"{root}/{name}", **safely)
    sys.path.insert(0, f"{root}/lib")
    import amibuild_checks
    code = amibuild_checks.main(f"{root}/steps", started)
sys.exit(code)
"""


def build_bundle(steps: Sequence[BuildStep]) -> bytes:
    """checks.pyz: `python3 checks.pyz --json FILE` runs them. The same for the same steps."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in (
            ("__main__.py", MAIN.encode()),
            ("lib.tar.xz", library()),
            ("steps.tar.xz", packed_checks(steps)),
        ):
            # A date of its own would make every bundle another one.
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def packed_checks(steps: Sequence[BuildStep]) -> bytes:
    """The checks alone, with their steps' facts, as a tar.xz."""
    facts = {step.name: dict(step.facts) for step in steps}
    content = {"facts.json": json.dumps(facts, sort_keys=True).encode()}
    for step in steps:
        content |= {f"step-{step.name}/{check.path}": check.content for check in step.checks}
    return _packed(content)


@functools.cache
def library() -> bytes:
    """pytest, testinfra and the runner. Takes 1.2 s to make, once for each process."""
    modules = {_path_of(name): tree for name, tree in _needed_modules()}
    front = LAZY_FRONT % _names_of(modules["pytest/__init__.py"])
    modules["pytest/__init__.py"] = ast.parse(front)
    runner = files("amibuild.verify").joinpath("checks.py").read_text()
    modules["amibuild_checks.py"] = ast.parse(runner)
    content = {path: _shrunk(tree) for path, tree in modules.items()} | STAND_INS
    return _packed({path: text.encode() for path, text in content.items()})


def _needed_modules() -> Iterator[tuple[str, ast.Module]]:
    """Each module that the roots import, directly or not."""
    waiting = [*ROOTS, *_testinfra_modules()]
    seen = {*NEVER_IMPORTED, *(_name_of(path) for path in STAND_INS)}
    while waiting:
        name = waiting.pop()
        parents = [name.rsplit(".", n)[0] for n in range(1, name.count(".") + 1)]
        for one in (name, *parents):
            if one in seen:
                continue
            seen.add(one)
            tree = _parsed(one)
            if tree is not None:
                yield one, tree
                if one != "pytest":  # it is replaced by the lazy front
                    waiting += _imports(one, tree)


def _testinfra_modules() -> list[str]:
    """Loaded by name when a check asks for `host.service` and the like."""
    package = importlib.util.find_spec("testinfra.modules")
    assert package is not None and package.submodule_search_locations
    folder = Path(package.submodule_search_locations[0])
    return [f"testinfra.modules.{path.stem}" for path in folder.glob("*.py")]


def _imports(name: str, tree: ast.Module) -> Iterator[str]:
    """The modules of ours that a module imports anywhere in its text."""
    package = name if _is_package(name) else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            if node.level:
                base = importlib.util.resolve_name(base, package)
            found = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (one for one in found if one.partition(".")[0] in OURS)


def _parsed(name: str) -> ast.Module | None:
    """None when there is no such module, since `from x import y` may name a class."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    if spec is None or spec.origin is None:
        return None
    tree = ast.parse(Path(spec.origin).read_text())
    _WithoutTyping().visit(tree)
    return tree


def _is_package(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.submodule_search_locations is not None


def _path_of(name: str) -> str:
    return name.replace(".", "/") + ("/__init__.py" if _is_package(name) else ".py")


def _name_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _names_of(front: ast.Module) -> dict[str, tuple[str, str]]:
    """Public name of pytest -> the module that it comes from, and its name there."""
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in front.body
        if isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__"
        for alias in node.names
    }


def _shrunk(tree: ast.Module) -> str:
    """The same program without docstrings, comments and annotations of functions.

    Annotations of classes stay: dataclasses are made of them.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
            given = node.args
            for argument in (
                *given.posonlyargs,
                *given.args,
                *given.kwonlyargs,
                *filter(None, (given.vararg, given.kwarg)),
            ):
                argument.annotation = None
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            _drop_docstring(node)
    return ast.unparse(tree)


class _WithoutTyping(ast.NodeTransformer):
    """Drops what only type checkers read."""

    def visit_If(self, node: ast.If) -> ast.AST:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = [ast.Pass()]
        return self.generic_visit(node)


def _drop_docstring(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module,
) -> None:
    if ast.get_docstring(node, clean=False) is not None:
        node.body[:1] = [] if len(node.body) > 1 else [ast.Pass()]


def _packed(content: Mapping[str, bytes]) -> bytes:
    """A tar.xz with no dates and owners, so that equal content is equal."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, data in sorted(content.items()):
            member = tarfile.TarInfo(path)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return lzma.compress(buffer.getvalue())
