# What a job of `penstock launch slurm` does. Above stand the #SBATCH lines, the site's prologue, and these variables:
#   folder: the run folder; script: this script, in a run folder; python: that of penstock; requeue: true or false.
# The batch shell drives the run. Ray is a background step for each group of nodes, whose tasks run this script too.

# Signals to the batch shell: USR1 from Slurm, before the time is over or the job has to make way; USR2 from
# `penstock stop`; TERM from scancel, which ends the steps as well. penstock takes one TERM; a second ends it at once.
asked='' driver=''
ask() {
    [ -n "$asked" ] || [ -z "$driver" ] || kill -TERM "$driver" 2>/dev/null
    [ "$asked" = end ] || asked=$1
}

# node ADDRESS IP ROLE: Ray on this node, the head if ADDRESS is empty, until the step gets a signal.
node() {
    local name=$SLURMD_NODENAME temp variable options
    temp=$(mktemp -d /tmp/penstock-XXXXXX) # short: the paths of Ray's sockets must end at 107 characters
    # shellcheck disable=SC2064  # the folder is known now
    trap "rm -rf '$temp'" EXIT
    trap 'exit 0' USR1 TERM
    if [ "$3" = learner ]; then # one CPU, so that no solver comes here, and its threads as the resource of that name
        options=(--num-cpus=1 --resources="{\"learner\": $SLURM_CPUS_ON_NODE}")
    else
        options=(--num-cpus="$SLURM_CPUS_ON_NODE")
    fi
    options+=(--num-gpus="${SLURM_GPUS_ON_NODE:-0}" --temp-dir="$temp/ray" --block)
    # Every port is a free one, for other jobs may be on this node; no samples lie in the object store.
    options+=(--dashboard-agent-listen-port=0 --object-store-memory=134217728 --include-log-monitor=false)
    options+=(--min-worker-port=0 --max-worker-port=0) # else each Ray of a node gives its workers the same ones
    if [ -n "$1" ]; then
        options+=(--address="$1")
    else
        options+=(--head --port=0 --include-dashboard=false ${2:+--node-ip-address="$2"})
    fi
    for variable in $(compgen -e); do # an MPI in a solver would take itself for a task of the step
        case $variable in SLURM* | SRUN* | SBATCH* | PMI*) unset "$variable" ;; esac
    done
    "$python" -m ray.scripts.scripts start "${options[@]}" &
    wait $!
    local code=$? # it ended by itself
    cp -r "$temp/ray/session_latest/logs" "$folder/logs/ray-$name" 2>/dev/null
    exit $code
}

# start_nodes GROUP ADDRESS IP HOST...: a step that runs `node` on hosts of a group of the job.
start_nodes() {
    local group=$1 address=$2 ip=$3 role=solver names
    shift 3
    names=$(IFS=,; echo "$*")
    if [ "${SLURM_HET_SIZE:-1}" = 1 ]; then
        group=''
    elif [ "$group" = 0 ]; then
        role=learner
    fi
    # The job's other steps and its batch shell share the nodes, and a node that is lost must not end the step.
    srun ${group:+--het-group="$group"} --nodelist="$names" --nodes=$# --ntasks=$# --overlap --no-kill \
        --kill-on-bad-exit=0 --mem=0 --cpu-bind=none --mpi=none --export=ALL --label \
        bash "$script" node "$address" "$ip" $role </dev/null >>"$log" 2>&1 &
    steps+=($!)
}

# hosts_of GROUP: the names of its nodes, one to a line.
hosts_of() {
    local list="SLURM_JOB_NODELIST_HET_GROUP_$1"
    scontrol show hostnames "${!list:-$SLURM_JOB_NODELIST}"
}

# start_ray: Ray on all nodes, this one first; sets its address.
start_ray() {
    local head=$SLURMD_NODENAME ip group others num_nodes=1 deadline
    : >"$log"
    # The address by which Slurm reaches this node. A loopback one is of no use to others; Ray then looks for its own.
    ip=$(scontrol show node --oneliner "$head" | sed -n 's/.* NodeAddr=\([^ ]*\) .*/\1/p')
    ip=$(getent ahostsv4 "$ip" | awk 'NR == 1 && !/^127\./ {print $1}')
    start_nodes 0 '' "$ip" "$head"
    until address=$(sed -n "s/.*ray start --address='\(.*\)'.*/\1/p" "$log") && [ -n "$address" ]; do
        if ! kill -0 "${steps[0]}" 2>/dev/null; then
            echo "penstock: Ray did not start on $head: see $log"
            end 1
        fi
        [ -z "$asked" ] || end 143
        sleep 0.5
    done
    for ((group = 0; group < ${SLURM_HET_SIZE:-1}; group++)); do
        mapfile -t others < <(hosts_of $group | grep -vxF "$head")
        [ ${#others[@]} = 0 ] || start_nodes $group "$address" '' "${others[@]}"
        num_nodes=$((num_nodes + ${#others[@]}))
    done
    deadline=$((SECONDS + 300))
    until [ "$(grep -c 'Ray runtime started' "$log")" = $num_nodes ]; do
        [ -z "$asked" ] || end 143
        if ((SECONDS > deadline)); then
            echo "penstock: of $num_nodes nodes some have not joined within 300 s: see $log"
            break
        fi
        sleep 0.5
    done
}

# end CODE: of the job, or of this life of it.
end() {
    trap - USR1 USR2 TERM
    local code=$1 step newest before fruitless=0
    for step in "${steps[@]}"; do kill -USR1 "$step" 2>/dev/null; done # srun passes it on
    wait
    if [ "$asked" != end ] && { [ "$code" = 75 ] || { [ "$code" = 143 ] && [ "$asked" = later ]; }; }; then
        # shellcheck disable=SC2012  # checkpoints have plain names
        newest=$(ls -t "$folder/checkpoints" 2>/dev/null | head -n 1)
        read -r before fruitless 2>/dev/null <"$folder/.requeued" || fruitless=0
        if [ "${newest:-none}" = "${before:-none}" ]; then fruitless=$((fruitless + 1)); else fruitless=0; fi
        if [ "$requeue" = true ] && [ "$fruitless" -ge 2 ]; then
            echo "penstock: two lives of the job in a row have made no checkpoint: it needs more time"
        elif [ "$requeue" = true ]; then
            echo "${newest:-none} $fruitless" >"$folder/.requeued"
            echo "penstock: the job goes back into the queue, and goes on from there"
            scontrol requeue "$SLURM_JOB_ID" && sleep 600 # in which Slurm ends this life
        fi
    fi
    [ "$code" = 0 ] || echo "penstock: go on with: sbatch ${array:+--array=$SLURM_ARRAY_TASK_ID }$(printf %q "$script")"
    exit "$code"
}

if [ "${1:-}" = node ]; then
    node "$2" "$3" "$4"
fi
trap 'ask later' USR1
trap 'ask end' USR2 TERM
log=$folder/logs/ray.log steps=() array=${SLURM_ARRAY_JOB_ID:-}
job=${array:+${array}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
[ -n "${SLURM_RESTART_COUNT:-}" ] || rm -f "$folder/.requeued"
if ! grep -qs "\"$job\"" "$folder/job.json"; then # submitted by hand
    printf '{"launcher": "slurm", "id": "%s", "submitted": "%s"}\n' "$job" "$(date -u +%FT%T+00:00)" >"$folder/.job.json"
    mv "$folder/.job.json" "$folder/job.json" # in one piece
fi
# The run's token is in its processes' environment alone. Nodes that load Python from one file system start slowly.
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0
export RAY_gcs_server_port_wait_time_s=300 RAY_agent_register_timeout_ms=300000
export RAY_worker_register_timeout_seconds=300
# TCP tries again 51 s after a cable was cut, the latest if it is back by then; Ray's nodes heard each other 54 s after.
# The head checks a node every 3 s, and gives an answer 10 s: n failures in a row come 13 n - 3 s after a cut, or 3 s
# sooner or later. Ray's default of 5 is 59 to 65 s, too close on a busy head; 7 are 85 to 91 s. A node that is lost
# without a word, with its power, is given up as late.
export RAY_health_check_failure_threshold="${RAY_health_check_failure_threshold:-7}"
# Ray's logs are in /tmp; by default each may take 3 GB.
export RAY_ROTATION_MAX_BYTES="${RAY_ROTATION_MAX_BYTES:-16000000}"
export RAY_ROTATION_BACKUP_COUNT="${RAY_ROTATION_BACKUP_COUNT:-1}"
# No record of each call of an actor.
export RAY_task_events_report_interval_ms="${RAY_task_events_report_interval_ms:-0}"
start_ray
"$python" -m penstock resume "$folder" "cluster.address=${address:?}" &
driver=$!
[ -z "$asked" ] || kill -TERM "$driver"
while kill -0 "$driver" 2>/dev/null; do wait "$driver"; done # a signal ends `wait` too
wait "$driver" # for its exit code, which bash keeps
end $?
