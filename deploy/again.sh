#!/bin/sh
# Give a command again until it ends with 0, for where nothing else does so:
#
#   again tiledlaf label INPUT OUTPUT ...
#
# Code 2 says that the command itself is wrong, and ends this, as a signal does. A batch with an image
# that cannot be labeled ends with 1, and is given again as often as TRIES says.
#
# TRIES  of the command at most; 20
# PAUSE  seconds before the next; 30
set -u
[ $# -gt 0 ] || { sed -n '/^# Give/,/^set/s/^# \?//p' "$0"; exit 2; }

stop() { # how the command ends counts: 143 where it was cut, 0 where it was just done
    trap '' INT TERM
    kill "${!:-}" 2>/dev/null || exit 143 # TERM: in the background INT is ignored
    while sleep 1 && kill "$!" 2>/dev/null; do :; done # a process that only starts loses a signal
    wait "$!"
    exit $?
}
trap stop INT TERM

left=${TRIES:-20}
while :; do
    "$@" &
    code=0
    wait "$!" || code=$?
    left=$((left - 1))
    case $code in 0 | 2) exit "$code" ;; esac
    [ "$left" -gt 0 ] || exit "$code"
    echo "again: code $code; again in ${PAUSE:-30} s, $left more at most" >&2
    sleep "${PAUSE:-30}" &
    wait "$!"
done
