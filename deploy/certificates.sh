#!/usr/bin/env bash
# Make DIR: a key, its certificate and the Dask configuration that asks for them everywhere.
#
#   deploy/certificates.sh DIR [PLACE]     PLACE: where DIR will be mounted, if elsewhere
#   export DASK_CONFIG=DIR                 for scheduler, workers and clients alike
#
# One key for all: who holds it is in, nobody else is. Make another DIR to lock the old one out.
set -euo pipefail
[ $# -gt 0 ] || { sed -n '/^# Make/,/^set/s/^# \?//p' "$0"; exit 2; }

umask 077
mkdir "$1"
cd "$1"
place=${2:-$PWD}
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN=tiledlaf \
    -keyout key.pem -out cert.pem 2>/dev/null
cat >tls.yaml <<END
distributed:
  comm:
    default-scheme: tls
    require-encryption: true
    tls:
      ca-file: $place/cert.pem
      scheduler: &one {cert: $place/cert.pem, key: $place/key.pem}
      worker: *one
      client: *one
END
