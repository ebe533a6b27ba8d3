"""One folder below provisioners/ -> a Provisioner or a Service, or every mistake in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Generic, TypeVar

from amibuild import proc
from amibuild.errors import Problem, RecipeError
from amibuild.library.provisioner import ParameterType, Provisioner, ProvisionerFile
from amibuild.library.service import Service, ServiceFile, service_user
from amibuild.library.step import StepFile
from amibuild.library.tree import as_asked, folders_below, read, read_tree
from amibuild.recipe.document import Document, did_you_mean, overlaid_document, read_document
from amibuild.recipe.excerpt import excerpt
from amibuild.recipe.locate import KeyPath
from amibuild.recipe.values import STEP_NAME

T = TypeVar("T")

FILES = "files/"
INSTALLER = "artifacts/artifacts.sh"
STRICT_MODE = "set -euo pipefail"
_BASH_SAYS = re.compile(r"^\./run\.sh: line (\d+): (.+)$", re.MULTILINE)
BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class Read(Generic[T]):
    """What a folder holds; no value when it can't be told, for the reasons in `problems`."""

    value: T | None
    problems: tuple[Problem, ...]


def read_provisioner(folder: Path) -> Read[Provisioner]:
    problems = list(_name_problems(folder))
    script = _read_script(folder, problems)
    top = folder / "files"
    files = read_tree(top, problems, prefix=FILES, plain=False)
    checks = _read_checks(folder, problems)
    name = f"test_{folder.name.replace('-', '_')}.py"
    if name not in {check.path for check in checks}:
        reason = "is missing: what a provisioner promises is checked on the finished image"
        problems.append(Problem(folder / name, None, "", reason))
    document = _read_document(folder / "provisioner.toml", problems)
    if document is None:
        return Read(None, tuple(problems))
    file, found = document.check(ProvisionerFile)
    problems += found
    if file is None:
        return Read(None, tuple(problems))
    asked = as_asked(files, file.files, folders_below(top), document, problems, prefix=FILES)
    if folder.name in file.after:
        at = ("after", file.after.index(folder.name))
        problems.append(document.origin.problem(at, "it can't be needed before itself"))
    for index, check in enumerate(file.builder_checks):
        if check not in {one.path for one in checks}:
            at = ("builder_checks", index)
            problems.append(document.origin.problem(at, f"there is no {check} beside it"))
    provisioner = Provisioner(
        name=folder.name,
        purpose=file.purpose,
        timeout_s=file.timeout_s,
        script=script,
        after=file.after,
        parameters=file.parameters,
        files=asked,
        checks=checks,
        artifacts=file.all_artifacts,
        builder_checks=file.builder_checks,
        secrets=file.secrets,
        reboots=file.reboot is not None,
    )
    may_fetch = any(p.type is ParameterType.ARTIFACT for p in file.parameters.values())
    if (file.all_artifacts or may_fetch) and INSTALLER not in script:
        reason = f"never runs `bash {INSTALLER} FOLDER`, and its artifacts would not be installed"
        problems.append(Problem(folder / "run.sh", None, "", reason))
    return Read(provisioner, tuple(problems))


# systemd-sysusers refuses a longer one (systemd's user-util.c: what utmp can hold).
USER_NAME = 31


def read_service(folder: Path, folders: Mapping[str, Path] | None = None) -> Read[Service]:
    """`folders` are all services by name, of which this one may be based on others."""
    problems = list(_name_problems(folder))
    if len(user := service_user(folder.name)) > USER_NAME:
        reason = f"its user would be {user}, and a user's name has at most {USER_NAME} letters"
        problems.append(Problem(folder, None, "", reason))
    layers = _layers(folder, folders or {}, problems)
    for layer in layers:
        if (layer / "run.sh").exists():
            reason = "a service is data alone; what needs a script goes into a provisioner"
            problems.append(Problem(layer / "run.sh", None, "", reason))
    configuration = _overlaid(
        read_tree(layer / "files", problems, prefix="", plain=True) for layer in layers
    )
    checks = _overlaid(_read_checks(layer, problems) for layer in layers)
    documents = [_read_document(layer / "service.toml", problems) for layer in layers]
    found_documents = [document for document in documents if document is not None]
    if len(found_documents) < len(layers):
        return Read(None, tuple(problems))
    document = overlaid_document(found_documents)
    file, found = document.check(ServiceFile)
    problems += found
    if file is None:
        return Read(None, tuple(problems))
    service = Service(folder.name, file, configuration, checks)
    for key, name in service.unknown_placeholders():
        known = service.placeholders()
        suggestion = did_you_mean(name, known) or f"known are {', '.join(known)}"
        problem = f"{{{name}}} stands for nothing"
        problems.append(document.origin.problem(key, problem, suggestion))
    return Read(service, tuple(problems))


def _layers(folder: Path, folders: Mapping[str, Path], problems: list[Problem]) -> list[Path]:
    """The folder, what it is based on, what that is based on, and so on."""
    layers = [folder]
    while True:
        newest = layers[-1]
        # Its mistakes are told where it is read for its values.
        document = _read_document(newest / "service.toml", [])
        base = document.values.get("based_on") if document else None
        if document is None or not isinstance(base, str):
            return layers
        at: KeyPath = ("based_on",)
        if base in {layer.name for layer in layers}:
            chain = " -> ".join([*(layer.name for layer in layers), base])
            problems.append(document.origin.problem(at, f"goes round in a circle: {chain}"))
            return layers
        if base not in folders:
            problem = f"there is no service {base}"
            problems.append(document.origin.problem(at, problem, did_you_mean(base, folders)))
            return layers
        layers.append(folders[base])


def _overlaid(layers: Iterable[Sequence[StepFile]]) -> tuple[StepFile, ...]:
    """Files by their path; an earlier layer's wins."""
    found: dict[str, StepFile] = {}
    for files in layers:
        for file in files:
            found.setdefault(file.path, file)
    return tuple(found[path] for path in sorted(found))


def _name_problems(folder: Path) -> Iterator[Problem]:
    if STEP_NAME.fullmatch(folder.name) is None:
        reason = "the folder's name must be lower-case words joined by -"
        yield Problem(folder, None, "", reason)


def _read_document(path: Path, problems: list[Problem]) -> Document | None:
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise RecipeError([Problem(path, None, "", "is no plain file")])
        return read_document(path)
    except RecipeError as error:
        problems += error.problems
        return None


def _read_script(folder: Path, problems: list[Problem]) -> str:
    path = folder / "run.sh"
    content = read(path, problems)
    if content is None:
        return ""
    script = content.decode(errors="surrogateescape")

    def wrong(reason: str, place: slice | None = None, suggestion: str | None = None) -> None:
        line = script.count("\n", 0, place.start) + 1 if place else None
        shown = excerpt(script, place) if place else None
        problems.append(Problem(path, line, "", reason, suggestion, shown))

    known = len(problems)
    first = script.partition("\n")[0].rstrip("\r")
    if not script.strip():
        wrong("is empty")
        return script
    if script.startswith(BYTE_ORDER_MARK):
        wrong("begins with a byte order mark, which bash can't read", slice(0, 1), "save without")
    elif not first.startswith("#!") or not first.endswith("bash"):
        reason = "must begin with #!/usr/bin/env bash, for bash is what runs it"
        wrong(reason, slice(0, len(first)))
    if STRICT_MODE not in script.splitlines():
        wrong(f"needs the line {STRICT_MODE}, or a failed command would go unseen")
    if "\r" in script:
        at = script.index("\r")
        reason = "has a carriage return, which bash can't read"
        wrong(reason, slice(at, at + 1), "save it with line ends as Linux has them")
    broken = next((at for at, c in enumerate(script) if "\udc80" <= c <= "\udcff"), None)
    if broken is not None:
        byte = ord(script[broken]) - 0xDC00
        reason = f"is not UTF-8: byte 0x{byte:02x} can't stand here"
        wrong(reason, slice(broken, broken + 1), "save it as UTF-8")
    if len(problems) == known and (told := _not_bash(folder, script)):
        number, reason = told
        line = script.splitlines()[number - 1 : number]
        shown = excerpt(line[0], slice(0, len(line[0]))) if line and line[0] else None
        problems.append(Problem(path, number, "", f"is not bash: {reason}", excerpt=shown))
    return script


@cache
def _not_bash(folder: Path, script: str) -> tuple[int, str] | None:
    """The line where bash stops to read `script`, and what it says.

    None also where there is no bash of today: that of macOS does not know all that Debian's does.
    """
    if proc.which("bash") is None:
        return None
    # -p: without BASH_ENV, which may be anything.
    look = "(( BASH_VERSINFO[0] >= 5 )) || exit 0; exec bash -p -n ./run.sh"
    done = proc.run(["bash", "-p", "-c", look], check=False, cwd=folder, env={"LC_ALL": "C"})
    found = _BASH_SAYS.search(done.stderr.decode(errors="replace"))
    return (int(found[1]), found[2]) if done.exit_code and found else None


def _read_checks(folder: Path, problems: list[Problem]) -> tuple[StepFile, ...]:
    checks = []
    for path in sorted(folder.glob("test_*.py")):
        content = read(path, problems)
        if content is None:
            continue
        try:
            ast.parse(content)
        except SyntaxError as error:
            problems.append(_python_problem(path, error))
        except ValueError as error:
            problems.append(Problem(path, None, "", f"is not Python: {error}"))
        checks.append(StepFile(path.name, content))
    return tuple(checks)


def _python_problem(path: Path, error: SyntaxError) -> Problem:
    shown = None
    if error.lineno and error.text is not None:
        at = max((error.offset or 1) - 1, 0)
        shown = excerpt(error.text, slice(at, at + 1))
    return Problem(path, error.lineno, "", f"is not Python: {error.msg}", excerpt=shown)
