"""A provisioner: one job with a purpose, typed parameters, a script, files and checks.

provisioner.toml is read into ProvisionerFile; with what stands beside it, it is a Provisioner,
which compiles to a BuildStep. Its parameters reach run.sh as `PARAM_` and their name in upper
case: strings as they are, whole numbers in decimal, booleans as `true` or `false`, lists with one
space between items, which is why an item can't contain white space; the items of `lines` may, for
they have a line each. `{image}` in a string or an item is the image's name. An artifact's is where
its file lies below the folder that artifacts.sh is told, and empty when there is none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, model_validator

from amibuild.library.artifact import Artifact, HasArtifacts, artifact_parts, name_of
from amibuild.library.step import BuildStep, StepFile, StepKind
from amibuild.library.tree import AskedFiles
from amibuild.recipe.document import Misplaced, did_you_mean
from amibuild.recipe.model import Parameter as GivenValue
from amibuild.recipe.model import ParameterValue
from amibuild.recipe.section import Section
from amibuild.recipe.values import Once, SecretName, StepName, Whole

PARAMETER_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
ENVIRONMENT_PREFIX = "PARAM_"
IMAGE = "{image}"
# As run.sh gets it: no sign but -, and no zero in front, which bash takes for octal.
NUMBER = re.compile(r"0|-?[1-9][0-9]{0,17}")
PINNED = "#sha256="


class ParameterType(StrEnum):
    STRING = "string"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    LIST = "list"
    ARTIFACT = "artifact"
    LINES = "lines"


WANTED = {
    ParameterType.STRING: "a string",
    ParameterType.INTEGER: "a whole number",
    ParameterType.BOOLEAN: "true or false",
    ParameterType.LIST: "a list of strings",
    ParameterType.ARTIFACT: f"a string: URL{PINNED}CHECKSUM, or empty",
    ParameterType.LINES: "a list of strings",
}


# Those whose values, or items, may have a pattern.
WORDS = (ParameterType.STRING, ParameterType.LIST, ParameterType.LINES)


class Parameter(Section):
    """What a recipe may set for a provisioner."""

    type: ParameterType = Field(
        description="string, integer, boolean, list (of words), lines (a list of any strings) or "
        f"artifact: a file that is fetched as URL{PINNED}CHECKSUM says, or none when empty."
    )
    description: str = Field(min_length=1, description="What it is for, in a sentence.")
    default: GivenValue | None = Field(
        default=None, description="Its value when the recipe gives none; none makes it required."
    )
    choices: tuple[str, ...] = Field(
        default=(), description="The only strings or list items allowed; all when empty."
    )
    minimum: Whole | None = Field(
        default=None,
        description="The smallest integer allowed; items of a list must be numbers then.",
    )
    maximum: Whole | None = Field(
        default=None,
        description="The largest integer allowed; items of a list must be numbers then.",
    )
    pattern: str | None = Field(
        default=None,
        min_length=1,
        description="A regular expression of Python that a whole string, or each item, must match.",
    )
    expected: str | None = Field(
        default=None,
        min_length=1,
        description="What the pattern wants, in words that end `'x' is not …`, with an example.",
    )

    @model_validator(mode="after")
    def _says_what_it_wants(self) -> Parameter:
        if self.pattern is None:
            return self
        if self.type not in WORDS:
            raise ValueError(f"a pattern is for {', '.join(WORDS)}, and this is {self.type}")
        if self.expected is None:
            raise ValueError("a pattern needs `expected`, which says in words what it wants")
        try:
            re.compile(self.pattern)
        except (re.error, OverflowError) as error:
            raise Misplaced(f"is no regular expression: {error}", "pattern") from error
        except RecursionError:
            raise Misplaced("is nested too deep", "pattern") from None
        return self

    @model_validator(mode="after")
    def _default_fits(self) -> Parameter:
        if self.default is not None and (problem := self.refuse(self.default)):
            raise Misplaced(problem[0], "default", suggestion=problem[1])
        return self

    def refuse(self, value: ParameterValue) -> tuple[str, str | None] | None:
        """What is wrong with a value, and a suggestion; None when it fits."""
        match self.type, value:
            case ParameterType.BOOLEAN, bool():
                return None
            case ParameterType.INTEGER, int() if not isinstance(value, bool):
                return self._refuse_number(value)
            case ParameterType.STRING, str():
                return self._refuse_word(value)
            case ParameterType.ARTIFACT, str():
                return _refuse_artifact(value)
            case ParameterType.LIST, tuple():
                spaced = [item for item in value if not item or len(item.split()) != 1]
                if spaced:
                    return f"has the item {spaced[0]!r}, and items can't hold white space", None
                return next((p for item in value if (p := self._refuse_item(item))), None)
            case ParameterType.LINES, tuple():
                if not all(value):
                    return "has an empty item", None
                return next((p for item in value if (p := self._refuse_word(item))), None)
            case _:
                return f"must be {WANTED[self.type]}", None

    def _refuse_number(self, value: int) -> tuple[str, None] | None:
        if self.minimum is not None and value < self.minimum:
            return f"must be at least {self.minimum}", None
        if self.maximum is not None and value > self.maximum:
            return f"must be at most {self.maximum}", None
        return None

    def _refuse_item(self, value: str) -> tuple[str, str | None] | None:
        if self.minimum is None and self.maximum is None:
            return self._refuse_word(value)
        if NUMBER.fullmatch(value) is None:
            return f"{value!r} is not {self.expected or 'a whole number'}", None
        if problem := self._refuse_number(int(value)):
            return f"{value!r} {problem[0]}", None
        return None

    def _refuse_word(self, value: str) -> tuple[str, str | None] | None:
        if "\n" in value or "\0" in value:
            return "must be one line", None
        if self.choices and value not in self.choices:
            problem = f"{value!r} is not one of {', '.join(self.choices)}"
            return problem, did_you_mean(value, self.choices)
        # The image's name is no part of what can be wrong here.
        if self.pattern and not re.fullmatch(self.pattern, value.replace(IMAGE, "image")):
            return f"{value!r} is not {self.expected}", None
        return None


def artifact_of(name: str, value: str) -> Artifact:
    """What the value of a parameter of that name says. Raises: ValidationError."""
    url, _, sha256 = value.partition(PINNED)
    return Artifact(url=url, sha256=sha256, into=name, unpack=False)


def _refuse_artifact(value: str) -> tuple[str, str | None] | None:
    if not value:
        return None
    try:
        artifact_of("it", value)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{first['loc'][0]} {first['msg'].removeprefix('Value error, ')}", None
    return None


def _parameter_names(parameters: Mapping[str, Parameter]) -> Mapping[str, Parameter]:
    for name in parameters:
        if PARAMETER_NAME.fullmatch(name) is None:
            problem = f"{name!r} is not a name of lower-case words joined by _"
            raise Misplaced(problem, name, of_key=True)
    return parameters


class Reboot(StrEnum):
    AFTER = "after"


class ProvisionerFile(HasArtifacts):
    """A whole provisioner.toml. Its name is that of its folder."""

    purpose: str = Field(min_length=1, description="What it is for, in a sentence.")
    timeout_s: Whole = Field(
        default=600, ge=10, le=172800, description="How long its run.sh may take."
    )
    after: tuple[StepName, ...] = Field(
        default=(), description="Steps that it needs before it in the recipe."
    )
    builder_checks: tuple[str, ...] = Field(
        default=(),
        description="Of its test_*.py, those that also run on the builder, before it is sealed.",
    )
    secrets: Annotated[tuple[SecretName, ...], Once] = Field(
        default=(),
        description="Secrets that its run.sh reads: files below $AMIBUILD_SECRETS, by name.",
    )
    reboot: Reboot | None = Field(
        default=None, description="after: the machine boots again when its run.sh has ended well."
    )
    parameters: Annotated[Mapping[str, Parameter], AfterValidator(_parameter_names)] = Field(
        default_factory=dict, description="What a recipe may set, by name."
    )
    files: AskedFiles = Field(
        default_factory=dict,
        description="Modes and owners of what is in files/, by path; else 0644, 0755 and root.",
    )


@dataclass(frozen=True)
class Provisioner:
    """A provisioner with all that belongs to it. `checks` are the test_*.py beside run.sh."""

    name: str
    purpose: str
    timeout_s: int
    script: str
    after: tuple[str, ...] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    files: tuple[StepFile, ...] = ()
    checks: tuple[StepFile, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    builder_checks: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    reboots: bool = False


def compile_provisioner(
    provisioner: Provisioner, given: Mapping[str, ParameterValue], image: str = "image"
) -> BuildStep:
    """The step, with `given` in place of the defaults. They must have been checked before."""
    values = {
        name: _named(value, image)
        for name, value in parameter_values(provisioner.parameters, given).items()
    }
    fetched = {
        name: artifact_of(name, value)
        for name, value in values.items()
        if provisioner.parameters[name].type is ParameterType.ARTIFACT
        and isinstance(value, str)
        and value
    }
    brought = artifact_parts((*provisioner.artifacts, *fetched.values()))
    # Not the address: it is no part of what makes the image.
    places = {name: f"{name}/{name_of(one.url)}" for name, one in fetched.items()}
    return BuildStep(
        name=provisioner.name,
        kind=StepKind.PROVISIONER,
        purpose=provisioner.purpose,
        script=provisioner.script,
        timeout_s=provisioner.timeout_s,
        files=(*provisioner.files, *brought.files),
        environment={
            variable(name): places.get(name, spell(value, provisioner.parameters[name].type))
            for name, value in values.items()
        },
        checks=provisioner.checks,
        facts={"parameters": {name: _plain(value) for name, value in values.items()}},
        sources=brought.sources,
        builder_checks=provisioner.builder_checks,
        secrets=provisioner.secrets,
        reboots=provisioner.reboots,
    )


def parameter_values(
    parameters: Mapping[str, Parameter], given: Mapping[str, ParameterValue]
) -> dict[str, ParameterValue]:
    values: dict[str, ParameterValue] = {}
    for name, parameter in parameters.items():
        value = given.get(name, parameter.default)
        if value is not None:
            values[name] = value
    return values


def variable(name: str) -> str:
    """The environment variable of a parameter."""
    return ENVIRONMENT_PREFIX + name.upper()


def spell(value: ParameterValue, kind: ParameterType) -> str:
    """A value as run.sh gets it."""
    match value:
        case bool():
            return "true" if value else "false"
        case tuple():
            return ("\n" if kind is ParameterType.LINES else " ").join(value)
        case _:
            return str(value)


def _named(value: ParameterValue, image: str) -> ParameterValue:
    if isinstance(value, tuple):
        return tuple(item.replace(IMAGE, image) for item in value)
    return value.replace(IMAGE, image) if isinstance(value, str) else value


def _plain(value: ParameterValue) -> Any:
    return list(value) if isinstance(value, tuple) else value


def provisioner_schema() -> dict[str, Any]:
    """JSON Schema of provisioner.toml, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ProvisionerFile.model_json_schema(),
        "title": "amibuild provisioner",
    }
