"""An IAM policy as a data source for Terraform's AWS provider. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from amibuild.permission import Wanted
from amibuild.policy import Flow, statements

SPECIAL = re.compile(r'[\\"\n\r\t]|[$%]\{')
ESCAPES = {
    "\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t", "${": "$${", "%{": "%%{"
}  # fmt: skip


def as_hcl(wanted: Wanted, flow: Flow, channels: Sequence[str] = ()) -> str:
    """The same as a data source for Terraform's AWS provider."""
    lines = [f'data "aws_iam_policy_document" "amibuild_{flow}" {{']
    for one in statements(wanted, flow, channels):
        lines += ["  statement {", f'    sid       = "{one.sid}"']
        lines.append(f"    actions   = {_list(sorted(one.actions))}")
        lines.append(f"    resources = {_list(one.resources)}")
        for test, keys in one.condition.items():
            for key, values in keys.items():
                lines += ["    condition {", f'      test     = "{test}"']
                lines.append(f"      variable = {_text(key)}")
                listed = values if isinstance(values, list) else [values]
                lines += [f"      values   = {_list(listed)}", "    }"]
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def _list(values: Sequence[str]) -> str:
    return "[" + ", ".join(map(_text, values)) + "]"


def _text(value: str) -> str:
    """Quoted, as HCL reads it back (HCL native syntax, quoted templates)."""
    return '"' + SPECIAL.sub(lambda found: ESCAPES[found[0]], value) + '"'
