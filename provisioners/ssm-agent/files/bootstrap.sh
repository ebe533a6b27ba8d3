#!/usr/bin/env bash
# Installs the pinned SSM agent where it lacks. Also runs as user-data on the first boot of a
# builder: REGION is set there.
set -euo pipefail

state() { dpkg-query -W -f='${db:Status-Status} ${Version}' "$1" 2>/dev/null || true; }
have=$(state amazon-ssm-agent)
if [[ $have == "installed $PARAM_VERSION"?(-*) ]]; then
    echo "amazon-ssm-agent: $have"
    exit 0
fi
# A platform that brings its own agent says so; amibuild's local target is one.
if [ -f /usr/share/amibuild-platform/agent ]; then
    read -r agent </usr/share/amibuild-platform/agent
    have=$(state "$agent")
    echo "the platform's agent, $agent: ${have:-missing}"
    [[ $have == installed* ]]
    exit
fi
[ -n "$PARAM_SHA256" ] || { echo "params.ssm-agent.sha256 is not set" >&2; exit 1; }
url=${PARAM_URL//'{version}'/$PARAM_VERSION}
if [[ $url == *'{region}'* ]]; then
    url=${url//'{region}'/${REGION:-$(cloud-init query region)}}
fi
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
chmod 755 "$at" # apt reads it as another user
echo "fetching $url"
python3 -c 'import sys, urllib.request as u; u.urlretrieve(*sys.argv[1:])' "$url" "$at/agent.deb"
echo "$PARAM_SHA256  $at/agent.deb" | sha256sum --check -
apt-get -y -o DPkg::Lock::Timeout=300 --allow-downgrades install "$at/agent.deb"
systemctl enable --now amazon-ssm-agent
