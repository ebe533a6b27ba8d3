"""Writes down what was tried from inside each service of a bake, and what refused it.

    python -m benchmarks.attacks MANIFEST

MANIFEST is a bake's own, in .amibuild/manifests. Writes provisioners/services/ATTACKS.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

from amibuild.outputs.manifest import Manifest
from amibuild.outputs.service_record import attack_table

PAGE = Path(__file__).parents[1] / "provisioners/services/ATTACKS.md"
HEAD = """\
# What was tried from inside of each service

In every verification a copy of each service's unit, which differs in its program alone, makes these
attempts on the machine that was booted from the image; as root and without a sandbox all of them
succeed there. This is one real bake, written by `python -m benchmarks.attacks`; each bake's
RUNBOOK.md has its own. In brackets is what the kernel said.

"""


def page(manifest: Manifest) -> str:
    head, *rows = attack_table(manifest.services)
    where = manifest.boot.machine if manifest.boot else "unknown"
    lines = ["| " + " | ".join(row) + " |" for row in (head, ("---", "---"), *rows)]
    names = ", ".join(manifest.services)
    told = f"Image {manifest.image.name}, services {names}; machine: {where}."
    return HEAD + told + "\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(Manifest.model_validate_json(Path(sys.argv[1]).read_text())))
