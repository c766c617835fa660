#!/usr/bin/env bash
# One latentray job over all nodes of a Slurm allocation: a Ray head, a Ray worker on every other node, then `encode` over them.
#   sbatch deploy/slurm.sh /data/films --archive /data/films.zarr --codec /data/pca --workers 2
# It is told two minutes before its time is up, or when it is preempted, and asks to be queued again; the same command goes on then.
#SBATCH --job-name=latentray
#SBATCH --nodes=2
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
# With GPUs: sbatch --gpus-per-node=4 deploy/slurm.sh ...
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:?submit this with sbatch, in the checkout}"
export PATH="$PWD/.venv/bin:$PATH"

# A token of this job alone, in a home that every node sees and no one else reads.
token=$(mktemp "$HOME/.latentray-token-XXXXXXXX")
trap 'rm -f "$token"; jobs -p | xargs --no-run-if-empty kill 2>/dev/null || true' EXIT
python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$token" RAY_USAGE_STATS_ENABLED=0

driver=
# shellcheck disable=SC2329 # called by the trap
queue_again() {
    [[ -z $driver ]] || { kill -TERM "$driver" 2>/dev/null && wait "$driver"; } || true
    scontrol requeue "$SLURM_JOB_ID" || true # where preemption has queued it again already
    exit 0
}
trap queue_again TERM

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head_ip=$(getent ahostsv4 "${nodes[0]}" | awk 'NR == 1 { print $1 }')
port=$((20000 + SLURM_JOB_ID % 10000)) # jobs that share a node do not meet
address="$head_ip:$port"
of_a_node=(--num-cpus "${SLURM_CPUS_PER_TASK:-1}" --num-gpus "${SLURM_GPUS_ON_NODE:-0}" --block)

srun --overlap --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" \
    ray start --head --node-ip-address="$head_ip" --port="$port" --ray-client-server-port="$((port + 10000))" \
    --dashboard-host=127.0.0.1 "${of_a_node[@]}" &
if ((${#nodes[@]} > 1)); then
    srun --overlap --nodes="$((${#nodes[@]} - 1))" --ntasks="$((${#nodes[@]} - 1))" --exclude="${nodes[0]}" \
        ray start --address="$address" "${of_a_node[@]}" &
fi
python deploy/wait_for_nodes.py "$address" "${#nodes[@]}"

python engine/encode_dataset.py "$@" --address "$address" &
driver=$!

status=0
wait "$driver" || status=$?
exit "$status"
