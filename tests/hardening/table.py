"""`python -m tests.hardening.table`: writes the table of the hardening's parts, or checks it.

It stands between two markers in provisioners/hardening/README.md. `make docs` writes it, `make
check` checks it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from tests.hardening.parts import HARDENING, Part, parts

README = HARDENING / "README.md"
BEGIN = "<!-- parts:begin -->"
END = "<!-- parts:end -->"


def table(found: Iterable[Part]) -> str:
    lines = ["| part | why | answers | proven on | checks |", "|---|---|---|---|---|"]
    lines += [f"| {' | '.join(cells(part))} |" for part in found]
    return "\n".join(lines) + "\n"


def cells(part: Part) -> Iterator[str]:
    yield f"[{part.name}](files/parts/{part.name}.sh)"
    yield part.reason.replace("|", "\\|")
    yield ", ".join(part.controls)
    yield "a kernel of its own" if part.asks_own_kernel else "each fresh boot"
    said = "; ".join(check.removeprefix("test_").replace("_", " ") for check in part.checks)
    yield f"[{said}]({part.check_file})"


def refreshed(text: str) -> str:
    """The README with its table as it should be."""
    before, begin, rest = text.partition(BEGIN + "\n")
    _, end, after = rest.partition(END + "\n")
    if not (begin and end):
        raise ValueError(f"{README} has no {BEGIN} and {END}")
    return f"{before}{begin}{table(parts())}{end}{after}"


def main(*, check: bool) -> int:
    text = README.read_text()
    wanted = refreshed(text)
    if wanted == text:
        return 0
    if check:
        sys.stderr.write(f"{README} is stale: run `make docs`\n")
        return 1
    README.write_text(wanted)
    sys.stderr.write(f"wrote {README}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
