"""Prints the CloudWatch agent's part for what is no service's, from the step's parameters.

Source: the agent's configuration schema, logs_collected.journald; `units` and `priority` of one
entry both have to fit.
"""

import json
import os
import sys

group = {
    "log_group_name": os.environ["PARAM_LOG_GROUP"],
    "retention_in_days": int(os.environ["PARAM_RETENTION_DAYS"]),
}
entries = [{**group, "log_stream_name": "{instance_id}", "priority": "notice"}]
if units := os.environ["PARAM_UNITS"].split():
    # What services print is `info`, and has its own group.
    entries.append({**group, "log_stream_name": "{instance_id}-units", "units": units})
part = {
    # Root: the state directories of services, where some write logs, are closed to all others.
    "agent": {"run_as_user": "root", "debug": False},
    "logs": {"logs_collected": {"journald": {"collect_list": entries}}},
}
json.dump(part, sys.stdout, indent=2)
sys.stdout.write("\n")
