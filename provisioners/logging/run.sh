#!/usr/bin/env bash
# The journal's limits, one rule for all that logrotate rotates, and the CloudWatch agent. Services
# that come after this step bring their own parts, which are joined when they are needed.
set -euo pipefail

install -D -m 0644 files/journald.conf /etc/systemd/journald.conf.d/amibuild.conf
sed -i -e "s/@MAX_MIB@/$PARAM_JOURNAL_MAX_MIB/" -e "s/@DAYS@/$PARAM_JOURNAL_DAYS/" \
    -e "s/@BURST@/$PARAM_RATE_BURST/" /etc/systemd/journald.conf.d/amibuild.conf

if ! command -v logrotate >/dev/null; then
    # -cmin: apt gives its lists the server's date as modification time.
    fresh=$(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -cmin -360 -print -quit)
    [ -n "$fresh" ] || apt-get -o DPkg::Lock::Timeout=300 update
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
        install --yes --no-install-recommends logrotate
fi
install -D -m 0755 -t /usr/lib/amibuild files/bin/*
install -D -m 0644 files/logrotate.conf /etc/systemd/system/logrotate.service.d/amibuild.conf
install -m 0644 files/cloudwatch-agent.logrotate /etc/logrotate.d/amazon-cloudwatch-agent
systemctl enable logrotate.timer

install -D -m 0644 files/agent.conf \
    /etc/systemd/system/amazon-cloudwatch-agent.service.d/amibuild.conf
install -d -m 0755 /etc/amibuild/cloudwatch.d
python3 files/system_part.py >/etc/amibuild/cloudwatch.d/system.json
chmod 0644 /etc/amibuild/cloudwatch.d/system.json
# A fragment that can't be joined is told here, not by an agent that won't start.
/usr/lib/amibuild/join-cloudwatch /dev/null

# What is absent is declared: amibuild writes it into the manifest, the runbook and its story.
declare_absent() {
    echo "$1" | tee -a "${AMIBUILD_RESULT:-/dev/null}"
}

if [ -n "$PARAM_AGENT" ]; then
    at=/var/cache/amibuild-agent
    bash artifacts/artifacts.sh "$at"
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install --yes "$at/$PARAM_AGENT"
    rm -rf "$at"
    systemctl enable amazon-cloudwatch-agent.service
elif [ -x /opt/aws/amazon-cloudwatch-agent/bin/start-amazon-cloudwatch-agent ]; then
    systemctl enable amazon-cloudwatch-agent.service # the source image brought it
else
    declare_absent "amazon-cloudwatch-agent is absent: params.logging.agent names no package; its \
configuration is there, and logs stay on the machine"
fi
