"""RUNBOOK.md: what the image is, how a person makes the same one by hand, and what came before.

Rendered from manifests alone, so it can't say what did not happen. The commands in it are in
`outputs/paste.py`; here is the prose around them. The generated part stands between two markers
and the user's own prose around it is never touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from amibuild.errors import PlanError
from amibuild.outputs import by_hand, paste
from amibuild.outputs.hardening_record import Lynis
from amibuild.outputs.manifest import Boot, File, Kind, Manifest, Step, newest_first
from amibuild.outputs.markdown import cell, code, prose
from amibuild.outputs.service_record import attack_table, table

BEGIN = "<!-- amibuild:begin -->"
END = "<!-- amibuild:end -->"

_NEW_FILE = """\
# Runbook

What stands between the two markers is rewritten by each bake. Write your own notes around them.

"""


def merge(existing: str | None, body: str) -> str:
    """The whole file: `body` between the markers, everything around them as it was.

    A file without markers keeps its text and gets them at its end.
    Raises: PlanError when the markers are not a pair, since what to replace is then unknown.
    """
    block = f"{BEGIN}\n{body.strip()}\n{END}\n"
    if existing is None or not existing.strip():
        return _NEW_FILE + block
    lines = existing.splitlines(keepends=True)
    bare = [line.strip() for line in lines]
    begins, ends = bare.count(BEGIN), bare.count(END)
    if (begins, ends) == (0, 0):
        return existing.rstrip("\n") + "\n\n" + block
    if (begins, ends) != (1, 1) or bare.index(BEGIN) > bare.index(END):
        raise PlanError(
            f"RUNBOOK.md must hold {BEGIN} and {END} once each, in this order, "
            f"and has {begins} and {ends}",
            hint="remove both lines: the next bake appends the generated part anew",
        )
    return "".join([*lines[: bare.index(BEGIN)], block, *lines[bare.index(END) + 1 :]])


def render(manifests: Sequence[Manifest]) -> str:
    """The generated part: the newest manifest is the body, the others are the history."""
    history = newest_first(manifests)
    newest = history[0]
    parts = [
        *_summary(newest),
        *_contents(newest),
        *_by_hand(newest),
        *_durations(newest),
        *_operations(newest),
        *_history(history),
    ]
    return "\n".join(parts).rstrip() + "\n"


def extract_steps(text: str) -> list[tuple[str, str]]:
    """Step name and the commands to paste, in order, from a whole RUNBOOK.md or a rendered part."""
    return paste.blocks(_generated(text.split("\n")))


def extract_commands(text: str) -> str:
    """All that a person pastes, as one script that stops at the first step that fails."""
    blocks = [commands for _, commands in extract_steps(text)]
    return "set -e\n" + "\n".join(blocks)


def _generated(lines: list[str]) -> list[str]:
    """What stands between the markers; all of it where there are none."""
    bare = [line.strip() for line in lines]
    if BEGIN not in bare or END not in bare:
        return lines
    return lines[bare.index(BEGIN) + 1 : bare.index(END)]


def _summary(m: Manifest) -> list[str]:
    checks = m.fresh_checks
    passed = sum(c.outcome == "passed" for c in checks)
    commit = f", commit {code(m.recipe.commit)}" if m.recipe.commit else ""
    rows = [
        ("AMI", f"{code(m.image.id)} in {code(m.image.region)}"),
        ("Name", code(m.image.name)),
        ("Digest", code(m.digest)),
        ("Made from", f"{code(m.source.ami_id)}, {code(m.source.name)} of {m.source.owner}"),
        ("Found by", code(m.source.reference)),
        ("Recipe", f"{code(m.recipe.path)}{commit}"),
        ("Baked", f"{_when(m.bake.started)} by {prose(f'{m.bake.user} on {m.bake.host}')}"),
        ("Target", f"{m.bake.target}, amibuild {m.bake.amibuild_version}, bake {m.bake.id}"),
        ("Took", _duration(m.seconds.total)),
        ("Root volume", f"{m.image.size_gib} GiB, {m.image.architecture}{_used(m)}"),
        ("Checks", f"{passed} of {len(checks)} passed on a fresh boot of the image"),
        *_boot(m),
        *_hardening(m),
        ("Finished disk", f"{len(m.hygiene.passed)} of {_asserted(m)} hygiene assertions passed"),
        *_waived(m),
    ]
    return [
        f"## {prose(m.image.name)}",
        "",
        "A golden AMI, baked by amibuild. Everything below is what happened in that bake.",
        "",
        *_table(("what", "value"), rows),
        "",
    ]


def _contents(m: Manifest) -> list[str]:
    lines = ["## What is in it", ""]
    for number, step in enumerate(m.steps, 1):
        lines.append(f"{number}. **{prose(step.name)}** ({step.kind.value}): {prose(step.purpose)}")
    lines.append("")
    if m.services:
        head, *rows = table(m.services)
        marked = [(code(name), code(user), *map(prose, rest)) for name, user, *rest in rows]
        lines += [*_table(head, marked), ""]
        lines += [
            "Exposure is systemd's word for how little a unit is shut in, from 0 to 10. The rest",
            "was seen on the fresh machine: a port answers a client, takes a connection or only",
            "listens; memory is what the service took there, with nobody connected.",
            "",
        ]
        lines += _attacks(m)
    lines.append(
        f"{len(m.packages)} Debian packages; all of them with versions are in the manifest."
    )
    if m.platform_packages:
        names = ", ".join(map(code, m.platform_packages))
        lines.append(f"There for the target and not for the recipe: {names}.")
    if m.units_enabled:
        lines.append(f"Units that start at boot: {', '.join(map(code, m.units_enabled))}.")
    return [*lines, ""]


def _attacks(m: Manifest) -> list[str]:
    rows = [tuple(map(prose, row)) for row in attack_table(m.services)]
    if not rows:
        return []
    return [
        "What was tried there in a copy of each service's unit, and outside of any, where it",
        "succeeds. None of it got through but what is said to be open:",
        "",
        *_table(rows[0], rows[1:]),
        "",
    ]


def _by_hand(m: Manifest) -> list[str]:
    lines = [
        "## How to make it by hand",
        "",
        *by_hand.launch(m),
        "",
        "Paste the blocks in this order. Each writes its files to a folder of its own below",
        f"`{paste.ROOT}` and runs them as the bake did. When one says `FAILED`, stop there.",
        "",
    ]
    for number, step in enumerate(m.steps, 1):
        lines += _step(number, step)
    return [*lines, *by_hand.capture(m)]


def _step(number: int, step: Step) -> list[str]:
    lines = [f"### {number}. {prose(step.name)}", "", prose(step.purpose), ""]
    if step.kind is Kind.SEAL:
        lines += [
            "This is the last step: it takes out the machine's identity, keys and traces. Don't",
            "log in again or start anything after it.",
            "",
        ]
    took = f"Exit code {step.exit_code} after {_duration(step.seconds)}; digest {code(step.digest)}"
    lines += [f"{took}; log {code(step.log)}.", ""]
    if step.secrets:
        names = ", ".join(map(code, step.secrets))
        lines += [
            f"It reads secrets, whose values stand nowhere here: {names}. Before the block, write",
            "each to a file, by itself and without leaving it in the shell's history; remove the",
            "folder after the last step that reads them:",
            "",
            "```sh",
            f"install -d -m 0700 {paste.SECRETS}",
            *(
                f'read -rs value && printf %s "$value" >{paste.SECRETS}/{one}'
                for one in step.secrets
            ),
            f"rm -r {paste.SECRETS}    # afterwards",
            "```",
            "",
        ]
    lines += [*paste.fenced(step), ""]
    if step.notes:
        lines += [*(f"- It declared: {prose(note)}" for note in step.notes), ""]
    if step.files:
        rows = [_file_row(f) for f in step.files]
        lines += [*_table(("file", "mode", "bytes", "SHA-256"), rows), ""]
    missing = [f for f in step.files if f.read() is None]
    if missing:
        names = ", ".join(code(f.path) for f in missing)
        lines += [
            f"Too large to stand here: {names}. Copy them from the recipe's folder, at the commit",
            "above, to the step's folder first; the block checks their hashes before it runs.",
            "",
        ]
    return lines


def _file_row(file: File) -> tuple[str, str, str, str]:
    # A line break in a name would be lost in a code span.
    name = code(file.path if file.path.isprintable() else repr(file.path)[1:-1])
    mode = f"`{file.mode:04o}`" + (f", {file.owner}" if file.owner else "")
    if file.link:
        return name, "link", "", f"to {code(file.link)}"
    if file.same_as:
        return name, "hard link", "", f"the same as {code(file.same_as)}"
    if file.folder:
        return name, mode, "", "a folder"
    return name, mode, str(file.size), code(file.sha256)


def _durations(m: Manifest) -> list[str]:
    if not m.seconds.steps:
        return []
    rows = [(prose(name), _duration(s)) for name, s in m.seconds.steps.items()]
    return [
        "## How long it took",
        "",
        *_table(("phase", "time"), [*rows, ("**until proven**", _duration(m.seconds.total))]),
        "",
    ]


def _operations(m: Manifest) -> list[str]:
    target, recipe = f"--target {m.bake.target}", by_hand.recipe_argument(m)
    keep = f"amibuild bake{recipe} {target} --on-error keep"
    reap = f"amibuild reap{recipe} {target} --dry-run"
    return [
        "## How to verify, promote, roll back, debug",
        "",
        "**Verify.** Boots a fresh machine from the image and runs all checks there:",
        "",
        "```sh",
        f"amibuild verify {target}{by_hand.recipe_option(m)} {m.image.version}",
        "```",
        "",
        "**Promote.** The bake wrote the AMI id to `amibuild.auto.tfvars.json` in the recipe's",
        f"Terraform folder {by_hand.FOLDER}. Review the change,",
        "commit it where that folder is under version control, and run `terraform plan` and",
        "`terraform apply`.",
        "",
        "**Roll back.** Revert that commit, or write an earlier AMI id there, and apply again;",
        "older images stay until someone removes them. The history below names them, and",
        "`amibuild images` those that exist.",
        "",
        "**Debug.** What the image was made from, and what a failed bake left:",
        "",
        "```sh",
        f"amibuild show {target}{by_hand.recipe_option(m)} {m.image.version}",
        f"{keep}   # the builder stays for a look",
        f"{reap:{len(keep)}}   # what dead bakes left; without it, removes",
        "```",
        "",
        f"Output of every step: `.amibuild/logs/{m.bake.id}/`. Every event of the bake:",
        f"`.amibuild/journals/{m.bake.id}.jsonl`.",
        "",
    ]


def _history(history: Iterable[Manifest]) -> list[str]:
    rows = [
        (
            code(m.image.version),
            code(m.image.id),
            m.image.region,
            _when(m.bake.started),
            code(m.digest[:12]),
            code(m.source.ami_id),
            _duration(m.seconds.total),
            "yes" if m.verified else "no",
        )
        for m in history
    ]
    head = ("version", "AMI", "region", "baked", "digest", "source", "took", "verified")
    return ["## History", "", *_table(head, rows), ""]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return lines + ["| " + " | ".join(map(cell, row)) + " |" for row in rows]


def _when(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _duration(seconds: float) -> str:
    """Rounded before it is parted, so that no part is ever 60."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _boot(m: Manifest) -> list[tuple[str, str]]:
    if m.boot is None:
        return []
    # A figure of an emulated machine says nothing about a real one, so it says which it was.
    took = f"{_boot_time(m.boot)} in userspace on that boot"
    before = f"; its source {_boot_time(m.source.boot)} as the builder" if m.source.boot else ""
    return [("Boot", took + before)]


def _boot_time(boot: Boot) -> str:
    return f"{_duration(boot.seconds)} ({prose(boot.machine)})"


def _hardening(m: Manifest) -> list[tuple[str, str]]:
    hardening = m.hardening
    if hardening is None:
        return []
    rows = []
    if hardening.lynis:
        rows.append(_lynis("Lynis", hardening.lynis, hardening.environment, hardening.machine))
    if builder := hardening.builder:
        named = "Lynis on the builder"
        rows.append(_lynis(named, builder.lynis, builder.environment, builder.machine))
    if scap := hardening.openscap:
        told = ", ".join(f"{count} {how}" for how, count in scap.results.items())
        rows.append(("OpenSCAP", f"{told}, of {code(scap.profile)}"))
    return rows


def _lynis(
    name: str, lynis: Lynis, environment: str | None, machine: str | None
) -> tuple[str, str]:
    where = f"in a {environment} ({prose(machine or '')})"
    lost = ", ".join(map(code, lynis.lost_to_host_kernel))
    asked = f"; of its tests {lost} ask the host's kernel" if lost else ""
    return name, f"{lynis.index} of 100 {where}, at least {lynis.floor}{asked}"


def _waived(m: Manifest) -> list[tuple[str, str]]:
    """Files, not keys: one may hold many."""
    paths = dict.fromkeys(w.path for w in m.hygiene.waived)
    if not paths:
        return []
    named = ", ".join(map(code, paths))
    return [("Private keys called public", f"in {named}: the recipe says that everybody has them")]


def _used(m: Manifest) -> str:
    used = m.sizes.get("root_used_bytes")
    return f", {used / 1e9:.2f} GB used" if used else ""


def _asserted(m: Manifest) -> int:
    return len(m.hygiene.passed) + len(m.hygiene.failed)
