"""Text of others in Markdown, such that nothing in it is read as a mark. Pure."""

from __future__ import annotations

import re


def prose(text: str) -> str:
    """One line of plain text that can't open a comment, a code block or a marker."""
    return re.sub("`{3,}", "``", " ".join(text.split())).replace("<", "&lt;")


def code(text: str) -> str:
    """As a code span, whatever backticks are in it."""
    flat = " ".join(text.split())
    if "`" not in flat:
        return f"`{flat}`"
    return f"`` {flat} ``" if "``" not in flat else prose(flat)


def cell(text: str) -> str:
    """What can stand in a table."""
    return text.replace("|", "\\|")
