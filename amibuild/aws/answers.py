"""Whether an answer is one of the service that was called, before botocore reads it.

What stands between here and AWS, such as a proxy or a login page, answers too, often with 200: its
page would be read as "done" or "nothing there", and its 404 as "gone". An error of a server, 500
and more, is left to botocore, which tries again.
"""

from __future__ import annotations

import json
import re
from typing import Any

from botocore.exceptions import BotoCoreError
from botocore.model import OperationModel

OURS = frozenset({"ec2", "ssm", "s3", "iam", "secretsmanager"})
SERVER_ERROR = 500
ROOT = re.compile(rb"\s*(?:<\?xml[^>]*\?>)?\s*<([A-Za-z][A-Za-z0-9_.:-]*)[\s/>]")
START = 60


class StrangeAnswer(BotoCoreError):
    fmt = "the answer, HTTP {status}, is not {service}'s: {start}"


def refuse_strange(
    *, operation_model: OperationModel, response_dict: dict[str, Any], **_: object
) -> None:
    """The subscriber of `before-parse`. Raises: StrangeAnswer."""
    # botocore's own logins have clients of the same session, and credentials in their answers.
    if operation_model.service_model.service_name not in OURS:
        return
    status, body = response_dict["status_code"], response_dict["body"]
    if status >= SERVER_ERROR or not isinstance(body, bytes):  # a stream is no answer to read yet
        return
    failed = status >= 300
    match operation_model.service_model.resolved_protocol:
        case "json":
            fits = _is_object(body, response_dict["headers"], failed=failed)
        case "rest-xml":
            fits = _is_of_s3(operation_model, response_dict, failed=failed)
        case _:
            root = _root(body)
            wanted = {f"{operation_model.name}Response"}
            fits = root in ({"Response", "ErrorResponse"} if failed else wanted)
    if not fits:
        service = operation_model.service_model.service_id
        start = body[:START].decode(errors="replace")
        raise StrangeAnswer(status=status, service=service, start=repr(start) if start else "empty")


def _root(body: bytes) -> str:
    found = ROOT.match(body)
    return found[1].decode().rpartition(":")[2] if found else ""


def _is_object(body: bytes, headers: Any, *, failed: bool) -> bool:
    """An error names itself in a header or in its body."""
    try:
        answer = json.loads(body)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        return False
    if not isinstance(answer, dict):
        return False
    return not failed or "__type" in answer or "x-amzn-errortype" in headers


def _is_of_s3(operation: OperationModel, response: dict[str, Any], *, failed: bool) -> bool:
    """Many of its answers have no body, errors of HEAD too; a redirect names the region."""
    body = response["body"].strip()
    if failed:
        redirects = 300 <= response["status_code"] < 400
        known = not redirects or "x-amz-bucket-region" in response["headers"]
        return _root(body) == "Error" if body else known
    shape = operation.output_shape
    parts = shape.members.values() if shape is not None else ()
    if any("location" not in part.serialization for part in parts):
        # An error may come with 200, which botocore makes one of the server of.
        return _root(body) == "Error" or _root(body).endswith("Result")
    return not body or _root(body) == "Error"
