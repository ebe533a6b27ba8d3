#!/usr/bin/env bash
# Runs a command as a user that this host does not have, with subordinate ids, without changing the
# host: the files that would name that user are replaced in a mount namespace of its own.
#
#     as_stranger.sh UID HOME TUN PATH... -- COMMAND...
#
# TUN is the mode that /dev/net/tun gets; every PATH is made reachable for others.
set -euo pipefail

if [[ ${STRANGER_INSIDE:-} != yes ]]; then
    STRANGER_INSIDE=yes exec unshare --mount --propagation private "$0" "$@"
fi

uid=$1 home=$2 tun=$3
shift 3
paths=()
while [[ $1 != -- ]]; do
    paths+=("$1")
    shift
done
shift

name=amibuild-stranger
stage=/mnt
mount -t tmpfs -o mode=755 tmpfs $stage
mkdir -p $stage/etc $stage/kept

replace() {
    mount --bind "$stage/$1" "$2"
}

cp /etc/passwd /etc/group $stage/etc/
echo "$name:x:$uid:$uid::$home:/bin/sh" >>$stage/etc/passwd
echo "$name:x:$uid:" >>$stage/etc/group
echo "$name:1000000:65536" | tee $stage/etc/subuid >$stage/etc/subgid
for file in passwd group subuid subgid; do
    [[ -e /etc/$file ]] && replace "etc/$file" "/etc/$file"
done
mknod -m "$tun" $stage/tun c 10 200
replace tun /dev/net/tun

# The first folder on the way to a path that others may not pass; nothing when they may.
closed_above() {
    local at='' part
    IFS=/ read -ra parts <<<"${1#/}"
    for part in "${parts[@]}"; do
        at+=/$part
        if [[ $((0$(stat -L -c %a "$at") & 1)) -eq 0 ]]; then
            echo "$at"
            return
        fi
    done
}

declare -A over=()
for number in "${!paths[@]}"; do
    closed=$(closed_above "${paths[number]}")
    [[ -n $closed && $closed != "${paths[number]}" ]] || continue
    mkdir "$stage/kept/$number"
    mount --bind "${paths[number]}" "$stage/kept/$number"
    over[$closed]+=" $number"
done
for closed in "${!over[@]}"; do
    mount -t tmpfs -o mode=755 tmpfs "$closed"
    for number in ${over[$closed]}; do
        mkdir -p "${paths[number]}"
        mount --bind "$stage/kept/$number" "${paths[number]}"
    done
done

exec setpriv --reuid "$uid" --regid "$uid" --clear-groups \
    env -i HOME="$home" PATH=/usr/bin:/bin "$@"
