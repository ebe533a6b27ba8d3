#!/usr/bin/env bash
# Runs command.sh beside it as root would: its stdout comes back apart from its stderr, whole up to
# $LIMIT_BYTES.
command=$PWD/command.sh
stdout=$AMIBUILD_RESULT
limit=$LIMIT_BYTES
unset AMIBUILD_RESULT LIMIT_BYTES
cd "$HOME" || exit
bash "$command" </dev/null >"$stdout"
code=$?
size=$(stat -c %s "$stdout")
if [ "$size" -gt "$limit" ]; then
    truncate -s "$limit" "$stdout"
    echo "amibuild: of $size bytes on stdout only the first $limit come back" >&2
fi
exit "$code"
