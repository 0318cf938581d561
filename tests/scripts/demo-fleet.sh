#!/usr/bin/env bash
# A whole fleet on this machine: Postgres, an S3 server, two coordinators, four
# workers, a merge between buckets in which a worker is killed, and the proof
# that every bit of the result is right. Listens on loopback only, and stops
# everything that it started, however it ends.
# 1 GB of disk below target/demo-fleet, 1 GB in the temporary folder.
set -euo pipefail
cd "$(dirname "$0")/../.."

demo=target/demo-fleet
family=$demo/family
out=$demo/out
lambda=0.5

# Bold on a terminal, plain elsewhere.
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi
step() { printf '\n%s▸ %s%s\n' "$bold" "$*" "$plain"; }
run() { printf '  $ %s\n' "$*"; "$@" 2>&1 | sed 's/^/  /'; }
fail() { printf '%s\nThe logs are in %s.\n' "$*" "$demo/logs" >&2; exit 1; }

processes=()
services=
stop_all() {
    trap - EXIT
    # Whoever has ended already needs no signal.
    for process in "${processes[@]}"; do kill -TERM "$process" 2> /dev/null || true; done
    for process in "${processes[@]}"; do wait "$process" 2> /dev/null || true; done
    # The services end with their stdin.
    if [ -n "$services" ]; then
        exec {services_in}>&-
        wait "$services" 2> /dev/null || true
    fi
}
trap stop_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start NAME COMMAND...: in the background, with a log. It ends with this script,
# even one that is killed.
start() {
    local name=$1
    shift
    printf '  $ %s &\n' "$*"
    setpriv --pdeathsig TERM -- "$@" < /dev/null > "$demo/logs/$name" 2>&1 &
    processes+=($!)
}

# wait_for FILE: until it is there, as long as the last process lives.
wait_for() {
    local process=$services
    if [ ${#processes[@]} -gt 0 ]; then process=${processes[-1]}; fi
    until [ -e "$1" ]; do
        kill -0 "$process" 2> /dev/null || fail "A process ended early."
        sleep 0.05
    done
}

# field NAME: the value of a number or a name in the JSON on stdin.
field() { grep -oE "\"$1\": ?\"?[A-Za-z0-9-]+" | head -n 1 | grep -oE '[A-Za-z0-9-]+$'; }

step "Build"
cargo build --release --quiet -p chatvec -p chatvec-tests
PATH=$PWD/target/release:$PATH
rm -rf "$out" "$demo/logs" "$demo/ports" "$demo/services.env"
mkdir -p "$demo/logs" "$demo/ports"

step "Start a Postgres for the jobs and a SeaweedFS, which speaks S3, for the checkpoints"
printf '  $ chatvec-lab services &\n'
exec {services_in}> >(exec chatvec-lab services --environment "$demo/services.env" > "$demo/logs/services" 2>&1)
services=$!
wait_for "$demo/services.env"
# The database's URL, and where the store is and how it knows us.
. "$demo/services.env"
run grep -v SECRET "$demo/services.env"

step "Make a family from a seed, and upload it"
run chatvec-lab family --preset demo --seed 7 --out "$family"
for member in base chat cp; do
    run chatvec-lab upload --folder "$family/$member" --prefix "family/$member"
done

step "Make the database ready"
run chatvec migrate

step "Start two coordinators: they share the database and nothing else"
for n in 1 2; do
    start "coordinator-$n" chatvec serve --listen 127.0.0.1:0 --port-file "$demo/ports/$n" \
        --part-size 5MiB --lease 3
    wait_for "$demo/ports/$n"
done
CHATVEC_COORDINATOR=http://$(cat "$demo/ports/1"),http://$(cat "$demo/ports/2")
export CHATVEC_COORDINATOR
printf '  $ export CHATVEC_COORDINATOR=%s\n' "$CHATVEC_COORDINATOR"

step "Start four workers: they know the coordinators and the store, and no database"
for n in 1 2 3 4; do
    start "worker-$n" env -u CHATVEC_DATABASE_URL chatvec worker --slots 1 --memory 128MiB
done
victim=${processes[-1]}

step "Submit a merge: out = cp + $lambda × (chat − base)"
submit=(chatvec submit -o json --request-id demo --cp s3://models/family/cp
    --chat s3://models/family/chat --base s3://models/family/base
    --lambda "$lambda" --out s3://models/out)
printf '  $ %s\n' "${submit[*]}"
job=$("${submit[@]}" | field job_id)
printf '  %s\n' "$job"

step "Kill a worker in the middle of it; its tasks go to the others when their lease is over"
while :; do
    now=$(chatvec get -o json "$job")
    state=$(field state <<< "$now")
    done=$(field tasks_done <<< "$now")
    [ "$state" = FAILED ] && fail "The job failed."
    if [ "$state" = RUNNING ] && [ "$done" -gt 2 ]; then break; fi
    if [ "$state" = SUCCEEDED ]; then fail "The job was too fast for this demo."; fi
done
printf '  %s of %s tasks are done\n' "$done" "$(field tasks_total <<< "$now")"
run kill -KILL "$victim"

step "Watch it to its end"
run chatvec watch "$job"

step "Prove it: download the result, compute all elements again, and compare bit by bit"
run chatvec-lab download --prefix out --folder "$out"
run chatvec-lab verify --cp "$family/cp" --chat "$family/chat" --base "$family/base" \
    --lambda "$lambda" --out "$out"

step "What was written"
run ls -l "$out"

step "Stop everything"
stop_all
printf '\n%sDone.%s The merged model is in %s, what each process said in %s.\n' \
    "$bold" "$plain" "$out" "$demo/logs"
