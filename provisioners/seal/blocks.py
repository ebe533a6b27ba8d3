"""Looks for secrets in every block of a finished disk, those of deleted files included.

Part of hygiene.py. The whole disk is read and its partition with the root file system, and neither
is written to. Known values come as fingerprints, see fingerprints.py.

A find is what can be used: the name of a kind of key alone, as programs and manuals have it, is
none. Not found is what is compressed or encrypted, and a key whose text does not follow its first
line on the disk. Needs nothing but Python 3.9, and debugfs for the paths.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from fingerprints import Fingerprints
from material import KEYS, MARKS
from paths import Paths, Where
from reading import Disk, Range, is_emulated, unused_ranges

KNOWN = "no known secret in any block"
Find = tuple[str, int, str]


def places(data: bytes, mark: bytes, begin: int, end: int) -> Iterator[int]:
    """Where it begins between the two; what is around is that of others."""
    at = data.find(mark, begin, end + len(mark) - 1)
    while at >= 0:
        yield at
        at = data.find(mark, at + 1, end + len(mark) - 1)


def finds(disk: Disk, known: Fingerprints, share: int, shares: int) -> Iterator[Find]:
    """Rule, offset on the disk, and what is there, in every so many-th chunk."""
    for number in range(share, len(disk), shares):
        for offset, begin, end, data in disk.written(number):
            base = offset - begin
            for mark, kind in MARKS.items():
                for at in places(data, mark, begin, end):
                    if said := kind.found(data, at):
                        yield kind.rule, base + at, said
            for anchor in known.by_anchor:
                for at in places(data, anchor, begin, end):
                    for name, start in known.found(data, at, anchor):
                        yield KNOWN, base + start, f"holds {name}"


def all_finds(path: str, unused: list[Range], known: Fingerprints) -> list[Find]:
    """By as many processes as there are processors."""
    shares = os.cpu_count() or 1
    ends = []
    for share in range(shares):
        read, write = os.pipe()
        if os.fork() == 0:
            code = 1
            try:
                found = list(finds(Disk(path, unused), known, share, shares))
                with os.fdopen(write, "w") as answer:
                    json.dump(found, answer)
                code = 0
            finally:
                if code:
                    traceback.print_exc()
                    sys.stderr.flush()
                os._exit(code)
        os.close(write)
        ends.append(read)
    found = []
    for end in ends:
        with os.fdopen(end) as answer:
            said = answer.read()
        os.wait()
        # One that ended early must not pass for a clean share.
        if not said:
            sys.exit(f"{path} could not be looked through")
        found += [tuple(find) for find in json.loads(said)]
    return sorted(found, key=lambda find: find[1])


def way_out(rule: str, where: Where) -> str:
    if rule != KEYS or not where.path.startswith("/"):
        return ""
    return "; if everybody has this key, name its file or folder in params.seal.known_public"


def is_packaged(where: Where, rule: str) -> bool:
    """What a package brings, everybody has. A value of ours is a secret wherever it is."""
    return rule != KNOWN and where.is_packaged


def is_waived(where: Where, rule: str, public: list[str]) -> bool:
    """A key that everybody has by the recipe's word, which stays on record."""
    below = [where.path == path or where.path.startswith(f"{path}/") for path in public]
    return rule == KEYS and any(below)


def inspect(
    disk: str, partition: str, root: Path, known: str, public: list[str]
) -> dict[str, list[object]]:
    """What was found, as hygiene.py says it. `known` is the text of the fingerprints."""
    began = time.monotonic()
    paths = Paths(disk, partition, root)
    # Of these, samples: comparing all with zero costs 0.2 s for 8 GiB, and emulated 16 s.
    unused = unused_ranges(partition, paths.begin, paths.block_size) if is_emulated() else []
    finds = all_finds(disk, unused, Fingerprints(known))
    found = [(*find, paths.of(find[1])) for find in finds]
    # Not `/`: it would take the whole disk for everybody's.
    public = [path.rstrip("/") for path in public if path.strip("/")]
    failed: list[object] = []
    waived: list[object] = []
    broken = set()
    for rule, offset, said, where in found:
        detail = f"{said}, at byte {offset} of the disk"
        if is_packaged(where, rule):
            continue
        if is_waived(where, rule, public):
            waived.append({"rule": rule, "path": where.path, "detail": detail})
        else:
            detail += way_out(rule, where)
            failed.append({"rule": rule, "path": where.path, "detail": detail})
            broken.add(rule)
    rules = dict.fromkeys([*(kind.rule for kind in MARKS.values()), KNOWN])
    passed: list[object] = [rule for rule in rules if rule not in broken]
    sys.stderr.write(f"every block of {disk}: {time.monotonic() - began:.1f} s\n")
    return {"passed": passed, "failed": failed, "waived": waived}
