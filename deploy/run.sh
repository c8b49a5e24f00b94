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
#   deploy/run.sh certificates DIR [PLACE]
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
    mkdir -p "$1"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 \
        -subj /CN=tiledlaf -keyout "$1/key.pem" -out "$1/cert.pem" 2>/dev/null
    cat >"$1/tls.yaml" <<END
distributed:
  comm:
    require-encryption: true
    tls:
      ca-file: $2/cert.pem
      scheduler: &one {cert: $2/cert.pem, key: $2/key.pem}
      worker: *one
      client: *one
END
)
if [ "$1" = certificates ]; then
    certificates "$2" "${3:-$(realpath "$2")}"
    exit
fi

listen=(--protocol tls --host 127.0.0.1)
if [ -n "${HOSTS:-}" ] || [ "${SLURM_NNODES:-1}" -gt 1 ]; then
    listen=(--protocol tls --interface "${INTERFACE:?needed: the network between hosts, as ib0}")
fi
state=$PWD/.tiledlaf-${SLURM_JOB_ID:-$$} # every host sees this folder, as it sees the image
rm -rf "$state"                          # of a job that was killed and runs again
end() {
    trap '' INT TERM USR1         # who is asked twice leaves no key behind
    kill "${scheduler:-}" || true # the workers leave with it
    wait
    rm -rf "$state"
} 2>/dev/null
trap end EXIT
trap 'exit 143' INT TERM # while there is no command to end
mkdir -m 700 "$state"
[ -n "${DASK_CONFIG:-}" ] || certificates "$state/tls" "$state/tls"
export DASK_CONFIG=${DASK_CONFIG:-$state/tls}
export DASK_LOGGING__DISTRIBUTED=${DASK_LOGGING__DISTRIBUTED:-warning}

kind=(worker --nworkers "${WORKERS:-${SLURM_CPUS_PER_TASK:--1}}")
memory=${SLURM_MEM_PER_CPU:+${SLURM_MEM_PER_CPU}MiB} # Dask does not see this limit
case " $* " in *" --device cuda "* | *" --device=cuda "*) kind=(cuda worker) memory= ;; esac
worker=("$(command -v dask)" "${kind[@]}" --scheduler-file "$state/scheduler.json" "${listen[@]}"
    --nthreads 1 --memory-limit "${MEMORY:-${memory:-auto}}" --death-timeout 60
    --dashboard-address 127.0.0.1:0)

workers() { # setsid: Ctrl-C in a terminal is for the command alone
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        setsid --wait srun --nodes="$SLURM_NNODES" --ntasks-per-node=1 \
            --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" "${worker[@]}"
    elif [ -n "${HOSTS:-}" ]; then
        local there
        there="cd $(printf %q "$PWD") && env $(printf '%q ' DASK_CONFIG="$DASK_CONFIG" \
            DASK_LOGGING__DISTRIBUTED="$DASK_LOGGING__DISTRIBUTED" "${worker[@]}")"
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
setsid setpriv --pdeathsig TERM dask scheduler --scheduler-file "$state/scheduler.json" \
    "${listen[@]}" --port 0 --dashboard-address "127.0.0.1:${DASHBOARD:-8787}" &
scheduler=$!
until grep -qs '^}' "$state/scheduler.json"; do
    kill -0 "$scheduler" || { echo "run.sh: the scheduler did not start" >&2 && exit 1; }
    sleep 0.2
done

"$@" --scheduler-file "$state/scheduler.json" &
client=$!
{
    workers || true
    # nothing would ever come; at the end of all there is none to stop
    kill "$client" 2>/dev/null && echo "run.sh: no worker is left" >&2
} &
# a trap ends the wait, so wait again
trap 'kill "$client" 2>/dev/null || true' INT TERM
trap 'kill "$client" 2>/dev/null || true; again=1' USR1
code=0
wait "$client" || code=$?
while kill -0 "$client" 2>/dev/null; do code=0 && wait "$client" || code=$?; done

if [ "$code" = 143 ] && [ -n "${again:-}" ]; then # the time limit is near
    end
    trap - EXIT
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
