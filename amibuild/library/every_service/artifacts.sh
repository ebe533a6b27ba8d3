#!/usr/bin/env bash
# Installs what a step brings as files of its own: all of it below one folder, or nothing.
#   bash artifacts/artifacts.sh FOLDER
# Everything is fetched, checked and unpacked beside FOLDER, which is then put in place by a rename.
# STEAM_APP, STEAM_BRANCH and STEAM_USER name a title that steamcmd brings.
set -euo pipefail

target=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# On the same file system, for the rename, and on a disk: /run is memory.
staging="$(dirname "$target")/.$(basename "$target").new"
tree="$staging/tree"

rm -rf "$staging"
trap 'rm -rf "$staging"' EXIT
mkdir -p "$(dirname "$target")"
mkdir -m 0755 "$staging" "$tree"

if [ -n "${STEAM_APP:-}" ]; then
    bash "$here/steamcmd.sh" "$tree"
fi
python3 "$here/fetch.py" "$here/sources.json" "$staging/fetched"
python3 "$here/unpack.py" "$here/artifacts.json" "$staging/fetched" "$tree"

# Root's alone: the service may read it all and change none of it.
chown -R -h root:root "$tree"
chmod -R u+rwX,go+rX,go-w,ug-s,o-t "$tree"

if [ -e "$target" ]; then
    mv -T "$target" "$staging/old"
fi
mv -T "$tree" "$target"
echo "installed below $target: $(du -s --block-size=1M "$target" | cut -f1) MiB"
