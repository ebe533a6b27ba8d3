"""`python -m tests.contract.table`: writes the contract as a table, or checks it with --check.

Every test here that pins an answer of AWS says so with `@answers` (answers.py); this collects what
they say into README.md beside them. `make docs` writes it, `make check` checks it.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from amibuild.local.overlay import operations
from tests.contract.answers import Answer

HERE = Path(__file__).parent
TABLE = HERE / "README.md"
HEAD = """# The contract

What AWS answers, where that is written, and what the local endpoint answers. Each row is pinned by
a test in this folder, which asks the endpoint with boto3. Written by `make docs` from the notes on
the tests; `make check` fails when it is stale.

A call that AWS has and the endpoint has not answers `UnsupportedOperation` with its name. The calls
that it has are listed in [operations.py](../../amibuild/local/overlay/operations.py), and every
other one of EC2 and SSM is asked once in [test_operations.py](test_operations.py).
"""
SECTIONS = {
    "ec2": "EC2",
    "ssm": "Systems Manager",
    "s3": "S3",
    "metadata": "Instance metadata",
    "": "Every service",
}


@dataclass(frozen=True, order=True)
class Row:
    """`order` keeps the rows of one call as its test file has them."""

    call: str
    file: str
    order: int
    answer: Answer


def rows() -> Iterator[Row]:
    for path in sorted(HERE.glob("test_*.py")):
        module = importlib.import_module(f"tests.contract.{path.stem}")
        for order, test in enumerate(vars(module).values()):
            # What a file has from another one is that one's.
            if getattr(test, "__module__", "") != module.__name__:
                continue
            for answer in getattr(test, "answers", ()):
                yield Row(answer.call, path.name, order, answer)


def section(call: str) -> str:
    """The service that the call is one of, by the first name in it."""
    if re.match(r"(GET|PUT) ", call):
        return "metadata"
    name = re.split(r"\W", call)[0]
    for service in ("ec2", "ssm", "s3"):
        if name in operations.genuine(service):
            return service
    return ""


def table() -> str:
    found = sorted(rows())
    parts = [HEAD]
    for service, title in SECTIONS.items():
        lines = [line(row) for row in found if section(row.call) == service]
        if lines:
            parts += [
                f"\n## {title}\n",
                "| call | when | AWS | ours | source |",
                "|---|---|---|---|---|",
            ]
            parts += lines
    return "\n".join(parts) + "\n"


def line(row: Row) -> str:
    answer = row.answer
    ours = f"[{cell(answer.ours or 'the same')}]({row.file})"
    cells = (cell(answer.call), cell(answer.when), cell(answer.ec2), ours, cell(answer.source))
    return f"| {' | '.join(cells)} |"


def cell(text: str) -> str:
    """One line, in which nothing is taken for markup."""
    return re.sub(r"([|\[\]*_<>])", r"\\\1", " ".join(text.split()))


def main(*, check: bool) -> int:
    wanted = table()
    if TABLE.exists() and TABLE.read_text() == wanted:
        return 0
    if check:
        sys.stderr.write(f"{TABLE.relative_to(Path.cwd())} is stale: run `make docs`\n")
        return 1
    TABLE.write_text(wanted)
    sys.stderr.write(f"wrote {TABLE.relative_to(Path.cwd())}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
