#!/usr/bin/env bash
#SBATCH --job-name=tiledlaf --nodes=2 --ntasks-per-node=1 --cpus-per-task=16 --mem-per-cpu=4G
#SBATCH --time=08:00:00 --signal=B:USR1@120 --requeue --open-mode=append
#
# Run one tiledlaf command on a Dask cluster that starts and ends with it: a scheduler here, and
# workers on this machine, on HOSTS by ssh, or on the nodes of a SLURM job.
#
#   deploy/run.sh tiledlaf label INPUT OUTPUT ...
#   HOSTS="one two" INTERFACE=eth0 deploy/run.sh tiledlaf label INPUT OUTPUT ...
#   INTERFACE=ib0 sbatch [--nodes=N] [--gres=gpu:N] deploy/run.sh tiledlaf label INPUT OUTPUT ...
#   deploy/run.sh tiledlaf label slides/*.svs --into results ...
#   sbatch --nodes=1 --array=0-49 deploy/run.sh bash slide.sh
#   deploy/run.sh certificates DIR [PLACE]
#
# Any command will do: it gets --scheduler-file as its last words, `tiledlaf` after its subcommand.
#
# WORKERS      processes a host, else one a core; with --device cuda always one a GPU
# MEMORY       of a worker, such as 8GiB; else its share of the host's
# INTERFACE    the network between hosts, by its name on each of them
# DASHBOARD    its port on this machine's loopback; 8787
# DASK_CONFIG  a folder of `certificates`, seen as PLACE where it is used; else made for this run
set -euo pipefail
[ $# -gt 0 ] || { sed -n '/^# Run/,/^set/s/^# \?//p' "$0"; exit 2; }

# Whoever reaches a scheduler runs code as you: all parts show the one certificate, or are refused.
certificates() ( # in a shell of its own: umask
    umask 077
    mkdir -p -- "$1"
    said=$(openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 \
        -subj /CN=tiledlaf -keyout "$1/key.pem" -out "$1/cert.pem" 2>&1) || {
        printf 'run.sh: no certificate: %s\n' "$said" >&2
        exit 1
    }
)
if [ "$1" = certificates ]; then
    [ $# -gt 1 ] || { echo "run.sh: expected certificates DIR [PLACE]" >&2 && exit 2; }
    place=${3:-$(realpath -m -- "$2" && echo .)} && place=${place%$'\n.'} # also a newline at its end
    if LC_ALL=C.UTF-8 && [[ $place = *[![:print:]]* ]]; then # YAML and Dask know no such names
        printf 'run.sh: expected a folder name of printable characters, got %q\n' "$place" >&2
        exit 2
    fi
    place=${place//\\/\\\\} place=${place//\"/\\\"}
    certificates "$2"
    cat >"$2/tls.yaml" <<END
distributed:
  comm:
    require-encryption: true
    tls:
      ca-file: "$place/cert.pem"
      scheduler: &one {cert: "$place/cert.pem", key: "$place/key.pem"}
      worker: *one
      client: *one
END
    exit
fi
dask=$(command -v dask) || { echo "run.sh: no dask on PATH: activate the environment" >&2 && exit 2; }

listen=(--protocol tls --host 127.0.0.1)
if [ -n "${HOSTS:-}" ] || [ "${SLURM_NNODES:-1}" -gt 1 ]; then
    listen=(--protocol tls --interface "${INTERFACE:?needed: the network between hosts, as ib0}")
fi
# The number of an array is that of one of its elements, too, but means all of them.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-${SLURM_JOB_ID:-}}
again='' state='' scheduler=''
# shellcheck disable=SC2317,SC2329 # the trap calls it
end() {
    local code=$?
    trap '' INT TERM USR1 # who is asked twice leaves no key behind
    {
        kill "$scheduler" || true # the workers leave with it
        wait
        [ -z "$state" ] || rm -rf "$state"
    } 2>/dev/null
    if [ "$code" = 143 ] && [ -n "$again" ]; then exec scontrol requeue "$job"; fi
}
trap end EXIT
trap 'exit 143' INT TERM # while there is no command to end
[ -z "$job" ] || trap 'again=1; exit 143' USR1 # the time limit is near

# Every host sees this folder, as it sees the image. It is of this start alone: on a node that only
# seemed lost, an earlier start of this job may go on.
for ((start = 0; start < ${SLURM_RESTART_COUNT:-0}; start++)); do
    rm -rf "$PWD/.tiledlaf-$job-$start-"*
done
state=$PWD/.tiledlaf-${job:+$job-${SLURM_RESTART_COUNT:-0}-}
state=$(mktemp -d "${state}XXXXXX")
if [ -z "${DASK_CONFIG:-}" ]; then # not a file of YAML, which cannot hold each name of a folder
    certificates "$state/tls"
    one=$state/tls/cert.pem key=$state/tls/key.pem tls=DASK_DISTRIBUTED__COMM__TLS__
    # Dask takes a path of two lines for the certificate itself
    if [[ $one = *$'\n'* ]]; then one=${one#"$PWD/"} key=${key#"$PWD/"}; fi
    export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=true "${tls}CA_FILE=$one"
    for part in SCHEDULER WORKER CLIENT; do
        export "${tls}${part}__CERT=$one" "${tls}${part}__KEY=$key"
    done
fi
export DASK_LOGGING__DISTRIBUTED=${DASK_LOGGING__DISTRIBUTED:-warning}

kind=(worker --nworkers "${WORKERS:-${SLURM_CPUS_PER_TASK:--1}}")
memory=${SLURM_MEM_PER_CPU:+${SLURM_MEM_PER_CPU}MiB} # Dask does not see this limit
last=''
for word; do
    if [ "$word" = --device=cuda ] || [ "$last=$word" = --device=cuda ]; then
        kind=(cuda worker) memory=''
    fi
    last=$word
done
worker=("$dask" "${kind[@]}" --scheduler-file "$state/scheduler.json" "${listen[@]}"
    --nthreads 1 --memory-limit "${MEMORY:-${memory:-auto}}" --death-timeout 60
    --dashboard-address 127.0.0.1:0)

quoted() { # for any shell; that of printf %q has quotes that only bash knows
    local word
    for word; do printf "'%s' " "${word//\'/\'\\\'\'}"; done
}
workers() { # setsid: Ctrl-C in a terminal is for the command alone
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        setsid --wait srun --nodes="$SLURM_NNODES" --ntasks-per-node=1 \
            --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" "${worker[@]}"
    elif [ -n "${HOSTS:-}" ]; then
        local name set=()
        for name in "${!DASK_@}"; do set+=("$name=${!name}"); done
        there="cd $(quoted "$PWD") && env $(quoted "${set[@]}" "${worker[@]}")"
        set -f                 # a host is no pattern of files
        for host in $HOSTS; do # -tt: what runs there ends with the connection
            setsid --wait ssh -tt -o BatchMode=yes -o ServerAliveInterval=15 "$host" "$there" \
                </dev/null &
        done
        wait
    else
        setsid --wait "${worker[@]}"
    fi
}

# the scheduler ends when this script is killed, and the rest with it
setsid setpriv --pdeathsig TERM "$dask" scheduler --scheduler-file "$state/scheduler.json" \
    "${listen[@]}" --port 0 --dashboard-address "127.0.0.1:${DASHBOARD:-8787}" &
scheduler=$!
until grep -qs '^}' "$state/scheduler.json"; do
    kill -0 "$scheduler" 2>/dev/null || { echo "run.sh: the scheduler did not start" >&2 && exit 1; }
    sleep 0.2
done

with=(--scheduler-file "$state/scheduler.json")
if [ "${1##*/}" = tiledlaf ]; then # where no -- ends its options
    set -- "$1" "${@:2:1}" "${with[@]}" "${@:3}"
else
    set -- "$@" "${with[@]}"
fi
"$@" &
client=$!
{
    workers || true
    # nothing would ever come; at the end of all there is none to stop
    kill "$client" 2>/dev/null && echo "run.sh: no worker is left" >&2
} &
# a trap ends the wait, so wait again
trap 'kill "$client" 2>/dev/null || true' INT TERM
[ -z "$job" ] || trap 'kill "$client" 2>/dev/null || true; again=1' USR1
code=0
wait "$client" || code=$?
while kill -0 "$client" 2>/dev/null; do code=0 && wait "$client" || code=$?; done
exit "$code"
