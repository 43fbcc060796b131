#!/usr/bin/env bash
# Trains on a slice of Cloud TPUs with gcloud. A slice that is taken away is not
# made again: SkyPilot's managed jobs do that (launch/sky_tpu.yaml). Every part
# prints its commands with --dry_run. See docs/howto/machines.md.
set -euo pipefail

usage() {
  cat <<'END'
launch/tpu_vm.sh WHAT [--setting=value ...] [--dry_run] [-- COMMAND ...]

  create              requests the slice and waits until it is ready
  install             copies this checkout to all workers and installs it
  start -- COMMAND    runs the command on all workers, in the background
  logs                follows the log of a worker
  ssh [-- COMMAND]    opens a shell on a worker, or runs the command there
  status              prints the state of the slice and of the training
  stop                SIGTERM on all workers: the training saves and ends
  delete              deletes the slice; until then it costs money

Settings, as flags or as variables of the environment (NAME, ZONE, ...):
  --name=trm --project=PROJECT --zone=us-central1-a
  --accelerator_type=v6e-32 --runtime_version=v2-alpha-tpuv6e   create
  --spot=1             create: may be taken away at any time, for less money
  --worker=0           logs, ssh
END
}

fail() {
  echo "error: $*" >&2
  exit 1
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

create() {
  local spot=() state
  if [[ $SPOT == 1 ]]; then spot=(--spot); fi
  run gcloud compute tpus queued-resources create "$NAME" "${PLACE[@]}" \
    --node-id="$NAME" --accelerator-type="$ACCELERATOR_TYPE" \
    --runtime-version="$RUNTIME_VERSION" "${spot[@]}"
  if ((DRY_RUN)); then
    echo "# then waits until this prints ACTIVE:"
    state_of_request
    return
  fi
  while true; do
    state=$(state_of_request) || state=UNKNOWN  # no connection: ask again
    case $state in
      ACTIVE) break ;;
      SUSPEND* | FAILED) fail "$NAME is $state; delete it, then create it" ;;
    esac
    echo "# $NAME is $state; checking again in $POLL_SECONDS s"
    sleep "$POLL_SECONDS"
  done
  echo "# $NAME is ACTIVE"
}

state_of_request() {
  run gcloud compute tpus queued-resources describe "$NAME" "${PLACE[@]}" \
    --format='value(state.state)'
}

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
    experiments launch pyproject.toml setup.cfg trm_jax
  run gcloud compute tpus tpu-vm scp "$archive" "$NAME:trm_jax.tar.gz" \
    "${PLACE[@]}" --quiet --worker=all
  on_workers all "$INSTALL"
}

# A service outlives the connection, and the command itself gets the SIGTERM
# when the machine is shut down. TPUs need to lock memory. The command goes
# through a file because systemd would expand a $ in it.
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
  local command=()
  if (($#)); then command=(--command="$(quoted "$@")"); fi
  run gcloud compute tpus tpu-vm ssh "$NAME" "${PLACE[@]}" \
    --worker="$WORKER" "${command[@]}"
}

((BASH_VERSINFO[0] >= 5)) || fail "this is bash $BASH_VERSION; 5 is needed"
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
: "${NAME:=}" "${PROJECT:=}" "${ZONE:=}" "${ACCELERATOR_TYPE:=}"
: "${RUNTIME_VERSION:=}" "${SPOT:=0}" "${WORKER:=0}" "${POLL_SECONDS:=60}"
DRY_RUN=0
WHAT=${1:---help}
if (($#)); then shift; fi
while (($#)); do
  case $1 in
    --dry_run) DRY_RUN=1 ;;
    --name=* | --project=* | --zone=* | --accelerator_type=* | --spot=* | \
      --runtime_version=* | --worker=*)
      setting=${1%%=*}
      setting=${setting#--}
      printf -v "${setting^^}" '%s' "${1#*=}"
      ;;
    --)
      shift
      break
      ;;
    *) fail "unexpected argument '$1'; see launch/tpu_vm.sh --help" ;;
  esac
  shift
done

NEEDED=(NAME PROJECT ZONE)
case $WHAT in
  --help) usage && exit ;;
  create) NEEDED+=(ACCELERATOR_TYPE RUNTIME_VERSION) ;;
  start) (($#)) || fail "say what to run: -- python -m trm_jax.main ..." ;;
  install | logs | ssh | status | stop | delete) ;;
  *) fail "unknown part '$WHAT'; see launch/tpu_vm.sh --help" ;;
esac
for name in "${NEEDED[@]}"; do
  [[ -n ${!name} ]] ||
    fail "${name,,} is missing: pass --${name,,}=... or set $name"
done
for name in SPOT WORKER; do
  [[ ${!name} =~ ^[0-9]+$ ]] ||
    fail "${name,,} is '${!name}'; it must be a number"
done
((DRY_RUN)) || command -v gcloud >/dev/null ||
  fail "gcloud is missing: see https://cloud.google.com/sdk/docs/install"
PLACE=(--project="$PROJECT" --zone="$ZONE")

case $WHAT in
  create) create ;;
  install) install_all ;;
  start) start "$@" ;;
  logs) on_workers "$WORKER" 'tail -n 100 -F trm.log' ;;
  ssh) connect "$@" ;;
  status)
    state_of_request
    on_workers all 'hostname; systemctl is-active trm; tail -n 2 trm.log'
    ;;
  stop) on_workers all 'sudo systemctl stop trm' ;;
  delete)
    run gcloud compute tpus queued-resources delete "$NAME" "${PLACE[@]}" \
      --force --quiet
    ;;
esac
