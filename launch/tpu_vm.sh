#!/usr/bin/env bash
# Trains on a slice of Cloud TPUs and makes it again when it is taken away.
# Every part says with --dry_run what it would do. See launch/README.md.
set -euo pipefail

usage() {
  cat <<'END'
launch/tpu_vm.sh WHAT [--setting=value ...] [--dry_run] [-- COMMAND ...]

  create              asks for the slice and waits until it is there
  install             copies this checkout to all workers and installs it
  start -- COMMAND    runs the command on all workers, in the background
  logs                follows the log of a worker
  ssh [-- COMMAND]    opens a shell on a worker, or runs the command there
  status              tells the state of the slice and of the training
  stop                SIGTERM on all workers: the training saves and ends
  delete              gives the slice back
  babysit -- COMMAND  all of this until the run has its result, whatever is
                      taken away meanwhile; then gives the slice back

Settings, as flags or as variables of the environment (NAME, ZONE, ...):
  --name=trm --project=PROJECT --zone=us-central1-a
  --accelerator_type=v6e-32 --runtime_version=v2-alpha-tpuv6e   create, babysit
  --spot=1             may be taken away at any time, for less money
  --worker=0           logs, ssh
  --poll_seconds=60    between two looks at the slice
  --max_starts=5       babysit gives up if the training ends without a result
                       so often on one slice
END
}

fail() {
  echo "error: $*" >&2
  exit 1
}

note() { echo "# $*"; }

pause() {
  note "$*; looking again in $POLL_SECONDS s"
  sleep "$POLL_SECONDS"
}

# Prints words so that a shell reads them again as they are.
quoted() {
  local word words=()
  for word; do
    [[ $word =~ ^[[:alnum:]_@%+=:,./-]+$ ]] || word=${word@Q}
    words+=("$word")
  done
  printf '%s\n' "${words[*]}"
}

run() {
  if ((DRY_RUN)); then quoted "$@"; else "$@"; fi
}

# --- the slice ---------------------------------------------------------------

request() {
  local spot=()
  if [[ $SPOT == 1 ]]; then spot=(--spot); fi
  run gcloud compute tpus queued-resources create "$NAME" "${PLACE[@]}" \
    --node-id="$NAME" --accelerator-type="$ACCELERATOR_TYPE" \
    --runtime-version="$RUNTIME_VERSION" "${spot[@]}"
}

delete() {
  run gcloud compute tpus queued-resources delete "$NAME" "${PLACE[@]}" \
    --force --quiet
}

state_of_request() {
  run gcloud compute tpus queued-resources list "${PLACE[@]}" \
    --filter="name~/$NAME\$" --format='value(state.state)'
}

state_of_machines() {
  run gcloud compute tpus tpu-vm list "${PLACE[@]}" \
    --filter="name~/$NAME\$" --format='value(state)'
}

# Prints nothing if there is no slice, ACTIVE if it can be used.
state() {
  local request machines
  request=$(state_of_request) || return
  if [[ $request == ACTIVE ]]; then
    # A slice that was taken away keeps its request for a while.
    machines=$(state_of_machines) || return
    if [[ $machines != READY ]]; then request=${machines:-TERMINATED}; fi
  fi
  echo "$request"
}

is_lost() {
  [[ $1 =~ ^(SUSPEND|STOP|FAILED|PREEMPTED|TERMINATED) ]]
}

create() {
  local now
  request
  if ((DRY_RUN)); then
    note "then waits until these print ACTIVE and READY:"
    state_of_request
    state_of_machines
    return
  fi
  while now=$(state || echo UNKNOWN) && [[ $now != ACTIVE ]]; do
    if is_lost "$now"; then fail "$NAME is $now; delete it and ask again"; fi
    pause "$NAME is $now"
  done
  note "$NAME is ACTIVE"
}

# --- its workers -------------------------------------------------------------

on_workers() {
  run gcloud compute tpus tpu-vm ssh "$NAME" "${PLACE[@]}" --quiet \
    --worker="$1" --command="$2"
}

# The machines' own Python is too old, uv brings one along. What a run has left
# in the folder stays.
INSTALL="mkdir -p trm_jax && cd trm_jax \
&& rm -rf build experiments launch trm_jax && tar -xzf ../trm_jax.tar.gz \
&& python3 -m pip install --quiet --user uv \
&& ~/.local/bin/uv venv --quiet --allow-existing --python=3.12 .venv \
&& ~/.local/bin/uv pip install --quiet --python=.venv/bin/python '.[tpu]'"

install_all() {
  local archive=${TMPDIR:-/tmp}/trm_jax-$NAME.tar.gz
  run tar -czf "$archive" --exclude=__pycache__ -C "$ROOT" LICENSE README.md \
    experiments launch pyproject.toml setup.cfg trm_jax &&
    run gcloud compute tpus tpu-vm scp "$archive" "$NAME:trm_jax.tar.gz" \
      "${PLACE[@]}" --quiet --worker=all &&
    on_workers all "$INSTALL"
}

# A service outlives the connection, and it is the command itself that gets the
# SIGTERM when the machine is shut down. TPUs want to lock memory. The command
# goes through a file because systemd would expand a $ in it.
start() {
  local script="cd ~/trm_jax && export PATH=~/trm_jax/.venv/bin:\$PATH"
  script+=" && exec $(quoted "$@") >>~/trm.log 2>&1"
  on_workers all "printf '%s\n' $(quoted "$script") >trm.sh \
&& { sudo systemctl reset-failed trm 2>/dev/null; \
sudo systemd-run --quiet --unit=trm --uid=\"\$(id -u)\" \
--property=LimitMEMLOCK=infinity --property=LimitNOFILE=1048576 \
--property=TimeoutStopSec=600 bash ~/trm.sh; }"
}

connect() {
  if (($#)); then
    on_workers "$WORKER" "$(quoted "$@")"
  else
    run gcloud compute tpus tpu-vm ssh "$NAME" "${PLACE[@]}" \
      --worker="$WORKER"
  fi
}

status() {
  state_of_request
  state_of_machines
  on_workers all 'hostname; systemctl is-active trm; tail -n 2 trm.log'
}

# --- until the run has ended for good ----------------------------------------

has_result() {
  run gcloud storage ls "$WORKDIR/result.json"
}

# Sets WORKDIR to that of the command.
find_workdir() {
  local word
  for word; do
    if [[ $word == --workdir=gs://?* ]]; then
      WORKDIR=${word#--workdir=}
      WORKDIR=${WORKDIR%/}
      return
    fi
  done
  fail "the command needs --workdir=gs://...: a slice that is taken away" \
    "takes its disks along"
}

babysit() {
  local now
  if ((DRY_RUN)); then
    tell_plan "$@"
    return
  fi
  STARTS=0
  until has_result &>/dev/null; do
    now=$(state) || now=UNKNOWN
    if [[ -z $now ]]; then
      note "asking for $NAME"
      request || pause "the request failed"
      STARTS=0
    elif [[ $now == ACTIVE ]]; then
      tend "$@"
    elif is_lost "$now"; then
      note "$NAME is $now and is made again"
      delete || pause "it could not be deleted"
    else
      pause "$NAME is $now"
    fi
  done
  note "$WORKDIR/result.json is there; $NAME is no longer needed"
  delete
}

# Starts the command on an active slice unless it runs there.
tend() {
  local services
  # A worker that does not answer may well be training.
  if ! services=$(on_workers all 'systemctl is-active trm || true'); then
    pause "the workers of $NAME do not answer"
  elif grep -qw active <<<"$services"; then
    sleep "$POLL_SECONDS"
  elif has_result &>/dev/null; then
    return
  elif ((++STARTS > MAX_STARTS)); then
    fail "the training ended $MAX_STARTS times on $NAME without a result; see" \
      "'logs', then 'delete' the slice: it still costs money"
  else
    note "installing and starting on $NAME ($STARTS of $MAX_STARTS times)"
    if ! { install_all && start "$@"; }; then pause "that failed"; fi
  fi
}

tell_plan() {
  note "does the following until this finds a result:"
  has_result
  note "if there is no slice:"
  request
  note "if it is ACTIVE (and READY), and the training does not run:"
  state_of_request
  state_of_machines
  on_workers all 'systemctl is-active trm || true'
  install_all
  start "$@"
  note "if it was taken away or failed, and once the result is there:"
  delete
}

# --- the command line --------------------------------------------------------

require() {
  local name
  for name; do
    if [[ -z ${!name} ]]; then
      fail "${name,,} is missing: say --${name,,}=... or set $name"
    fi
  done
}

require_number() {
  local name
  for name; do
    if ! [[ ${!name} =~ ^[0-9]+$ ]]; then
      fail "${name,,} is '${!name}'; it must be a number"
    fi
  done
}

require_command() {
  if ! (($#)); then fail "say what to run: -- python -m trm_jax.main ..."; fi
}

((BASH_VERSINFO[0] >= 5)) || fail "this is bash $BASH_VERSION; 5 is needed"
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
: "${NAME:=}" "${PROJECT:=}" "${ZONE:=}" "${ACCELERATOR_TYPE:=}"
: "${RUNTIME_VERSION:=}" "${SPOT:=0}" "${WORKER:=0}" "${POLL_SECONDS:=60}"
: "${MAX_STARTS:=5}"
DRY_RUN=0
WHAT=${1:---help}
if (($#)); then shift; fi
while (($#)); do
  case $1 in
    --dry_run) DRY_RUN=1 ;;
    --name=* | --project=* | --zone=* | --accelerator_type=* | --spot=* | \
      --runtime_version=* | --worker=* | --poll_seconds=* | --max_starts=*)
      setting=${1%%=*}
      setting=${setting#--}
      printf -v "${setting^^}" '%s' "${1#*=}"
      ;;
    --)
      shift
      break
      ;;
    *) fail "what is '$1'? see launch/tpu_vm.sh --help" ;;
  esac
  shift
done

case $WHAT in
  --help)
    usage
    exit
    ;;
  create | babysit)
    require NAME PROJECT ZONE ACCELERATOR_TYPE RUNTIME_VERSION
    ;;
  install | start | logs | ssh | status | stop | delete)
    require NAME PROJECT ZONE
    ;;
  *) fail "what is '$WHAT'? see launch/tpu_vm.sh --help" ;;
esac
require_number SPOT WORKER POLL_SECONDS MAX_STARTS
case $WHAT in start | babysit) require_command "$@" ;; esac
if [[ $WHAT == babysit ]]; then find_workdir "$@"; fi
((DRY_RUN)) || command -v gcloud >/dev/null ||
  fail "gcloud is missing: see https://cloud.google.com/sdk/docs/install"
PLACE=(--project="$PROJECT" --zone="$ZONE")

case $WHAT in
  install) install_all ;;
  start | babysit) "$WHAT" "$@" ;;
  ssh) connect "$@" ;;
  logs) on_workers "$WORKER" 'tail -n 100 -F trm.log' ;;
  stop) on_workers all 'sudo systemctl stop trm' ;;
  *) "$WHAT" ;;
esac
