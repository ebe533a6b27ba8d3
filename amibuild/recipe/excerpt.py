"""The line of a mistake, cut to what a person reads at a glance, with the place in it.

Nothing leaves here that a terminal would obey, nor what an address may hide behind its path.
"""

from __future__ import annotations

import re
from functools import lru_cache

from amibuild.errors import Excerpt

LONGEST = 100
# What stays readable before the place, where a long line is cut.
LEAD = 40
CUT = "…"
# A query may hold a token, and what stands before @ a password.
HIDDEN = re.compile(r"""(?<=://)[^\s/"'@]+(?=@)|(?<=\?)[^"'#]+""")
ADDRESS = re.compile(r"(?<=[A-Za-z0-9+.-])://")


def excerpt(text: str, place: slice) -> Excerpt:
    """The line where `place` begins, and the part of it that is meant."""
    begin = text.rfind("\n", 0, place.start) + 1
    end = text.find("\n", begin)
    line = harmless(text[begin : end if end >= 0 else len(text)])
    at = min(place.start - begin, len(line))
    width = max(min(place.stop - begin, len(line.rstrip())) - at, 1)
    if len(line) > LONGEST:
        first = max(min(at - LEAD, len(line) - LONGEST), 0)
        last = first + LONGEST
        before, after = CUT if first else "", CUT if last < len(line) else ""
        line = before + line[first + len(before) : last - len(after)] + after
        at -= first
        width = min(width, LONGEST - at)
    return Excerpt(line.rstrip(), at, width)


@lru_cache(maxsize=8)  # a line of a megabyte may have many mistakes
def harmless(line: str) -> str:
    """What may be told of it, as long as before, so that a place in it stays right."""
    if ADDRESS.search(line):
        line = HIDDEN.sub(lambda found: "*" * len(found.group()), line)
    return "".join(c if c.isprintable() else " " if c == "\t" else "\ufffd" for c in line)
