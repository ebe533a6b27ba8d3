"""What differs between two images, from their manifests alone. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from amibuild.outputs.manifest import Kind, Manifest


@dataclass(frozen=True, order=True)
class Changed:
    """One thing by its name. `before` is None where it is new, `after` where it is gone."""

    name: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.name} {self.after}".rstrip()
        if self.after is None:
            return f"- {self.name} {self.before}".rstrip()
        return f"~ {self.name} {self.before} -> {self.after}"


@dataclass(frozen=True)
class Difference:
    """`packages` by their versions, `services` by the digests of what installs them."""

    packages: tuple[Changed, ...]
    services: tuple[Changed, ...]


def difference(before: Manifest, after: Manifest) -> Difference:
    return Difference(
        packages=changed(before.packages, after.packages),
        services=changed(_services(before), _services(after)),
    )


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Changed, ...]:
    """By name: what only one of them has, and what both have with another value."""
    return tuple(
        Changed(name, before.get(name), after.get(name))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )


def count_text(things: Sequence[Changed]) -> str:
    """Such as `2 changed, 1 new`; `the same` without any."""
    counts = {
        "changed": sum(t.before is not None and t.after is not None for t in things),
        "new": sum(t.before is None for t in things),
        "gone": sum(t.after is None for t in things),
    }
    return ", ".join(f"{n} {what}" for what, n in counts.items() if n) or "the same"


def _services(manifest: Manifest) -> dict[str, str]:
    """Service -> the beginning of its step's digest."""
    return {s.name: s.digest[:12] for s in manifest.steps if s.kind is Kind.SERVICE}
