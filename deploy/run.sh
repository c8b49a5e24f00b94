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
#
# WORKERS    processes a host, else one a core; with --device cuda always one a GPU
# MEMORY     of a worker, such as 8GiB; else its share of the host's
# INTERFACE  the network between hosts; TLS on it is by DASK_CONFIG, see certificates.sh
# DASHBOARD  its port on this machine's loopback; 8787
set -euo pipefail
[ $# -gt 0 ] || { sed -n '/^# Run/,/^set/s/^# \?//p' "$0"; exit 2; }

state=$PWD/.tiledlaf-${SLURM_JOB_ID:-$$} # every host sees this folder, as it sees the image
listen=(--host 127.0.0.1)
if [ -n "${SLURM_JOB_ID:-}${HOSTS:-}" ]; then
    # whoever reaches a scheduler without TLS runs code as you
    : "${DASK_CONFIG:?needed by several hosts: certificates.sh DIR makes it, DASK_CONFIG=DIR}"
    listen=(--protocol tls --interface "${INTERFACE:?needed: the network between hosts, as ib0}")
fi
export DASK_LOGGING__DISTRIBUTED=${DASK_LOGGING__DISTRIBUTED:-warning}
kind=(worker --nworkers "${WORKERS:--1}")
case " $* " in *" --device cuda "* | *" --device=cuda "*) kind=(cuda worker) ;; esac
worker=("$(command -v dask)" "${kind[@]}" --scheduler-file "$state/scheduler.json" "${listen[@]}"
    --nthreads 1 --memory-limit "${MEMORY:-auto}" --death-timeout 60
    --dashboard-address 127.0.0.1:0)

workers() { # setsid: Ctrl-C in a terminal is for the command alone
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        setsid --wait srun --nodes="$SLURM_NNODES" --ntasks-per-node=1 \
            --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" "${worker[@]}"
    elif [ -n "${HOSTS:-}" ]; then
        local there
        there="cd $(printf %q "$PWD") && env $(printf '%q ' \
            DASK_CONFIG="$DASK_CONFIG" DASK_LOGGING__DISTRIBUTED="$DASK_LOGGING__DISTRIBUTED" \
            "${worker[@]}")"
        for host in $HOSTS; do # -tt: what runs there ends with the connection
            setsid --wait ssh -tt -o BatchMode=yes -o ServerAliveInterval=15 "$host" "$there" \
                </dev/null &
        done
        wait
    else
        setsid --wait "${worker[@]}"
    fi
}

end() {
    kill "$scheduler" || true # the workers leave with it
    wait
    rm -rf "$state"
} 2>/dev/null

rm -rf "$state" # of a job that was killed and runs again
mkdir -m 700 "$state"
# the scheduler ends when this script is killed, and the rest with it
setsid setpriv --pdeathsig TERM dask scheduler --scheduler-file "$state/scheduler.json" \
    "${listen[@]}" --port 0 --dashboard-address "127.0.0.1:${DASHBOARD:-8787}" &
scheduler=$!
trap end EXIT
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
trap 'kill "$client"' INT TERM
trap 'kill "$client"; again=1' USR1
code=0
wait "$client" || code=$?
while kill -0 "$client" 2>/dev/null; do code=0 && wait "$client" || code=$?; done

if [ "$code" = 143 ] && [ -n "${again:-}" ]; then # the time limit is near
    end
    trap - EXIT
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
