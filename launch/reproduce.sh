#!/usr/bin/env bash
# Measures one GPU, then trains Sudoku-Extreme and Maze-Hard on it in chunks.
# Every chunk saves and ends after --minutes; the same command resumes, also on
# another machine that has the folder --out. See launch/README.md.
set -euo pipefail

usage() {
  cat <<'END'
launch/reproduce.sh [--setting=value ...] [--dry_run] [EXPERIMENT ...]

First python -m benchmarks.gpu, then each EXPERIMENT (sudoku_fast, sudoku and
maze) until it is trained, then its evaluation on all test puzzles.

  --out=runs/reproduce   folder of all results, of the repository's root
  --minutes=10           time limit of a chunk
  --chunks=0             end after this many chunks; 0: go on to the end
  --data=FOLDER          has sudoku/ and maze/ with train.csv[.gz] and
                         test.csv[.gz]; by default the public downloads
  --try                  narrow networks on generated puzzles, on any device
  --dry_run              print the commands and the state, run nothing
END
}

fail() {
  echo "error: $*" >&2
  exit 1
}

# What of a run is there: the result, or the newest checkpoint.
state() {
  local newest
  if [[ -e $OUT/$1/score.txt ]]; then
    tail -n 1 "$OUT/$1/score.txt"
  elif [[ -e $OUT/$1/result.json ]]; then
    echo "trained, not evaluated"
  else
    newest=$(find "$OUT/$1/checkpoints" -maxdepth 1 -name 'ckpt_*[0-9]' \
      2>/dev/null | sort -V | tail -n 1)
    if [[ -n $newest ]]; then echo "step ${newest##*_}"; else echo "not begun"; fi
  fi
}

# Prints a command, and runs it unless this is a dry run.
run() {
  echo "+ ${*@Q}"
  if ((!DRY_RUN)); then "$@"; fi
}

# Counts a chunk that was done; ends the script after the last of --chunks.
count() {
  DONE=$((DONE + 1))
  if ((CHUNKS && DONE >= CHUNKS)); then
    report
    exit
  fi
}

report() {
  local name
  for name in "${EXPERIMENTS[@]}"; do echo "# $name: $(state "$name")"; done
}

measure() {
  local words=(python -m benchmarks.gpu "--out=$OUT/gpu" "--minutes=$MINUTES")
  if ((TRY)); then words+=(--try); fi
  if [[ -e $OUT/gpu/table.md ]]; then return; fi
  if ((DRY_RUN)); then
    run "${words[@]}"
    return
  fi
  mkdir -p "$OUT/gpu"
  run "${words[@]}" | tee "$OUT/gpu/table.part"
  mv "$OUT/gpu/table.part" "$OUT/gpu/table.md"
  count
}

train() {
  local before name=$1 words
  words=(python -m trm_jax.main "--config=experiments/$name.py")
  if ((TRY)); then words[-1]+=:smoke; fi
  words+=("--workdir=$OUT/$name")
  if [[ -n $DATA ]]; then
    words+=("--config.data.source=$DATA/${name%%_*}")
  fi
  while [[ ! -e $OUT/$name/result.json ]]; do
    before=$(state "$name")
    # All 422,786 puzzles would take most of a chunk.
    run "${words[@]}" --config.eval.max_tasks=10000 \
      "--config.train.time_limit_minutes=$MINUTES"
    if ((DRY_RUN)); then break; fi
    [[ $(state "$name") != "$before" ]] ||
      fail "$name made no step in $MINUTES minutes; raise --minutes"
    echo "# $name: $(state "$name")"
    count
  done
  if [[ -e $OUT/$name/score.txt ]]; then return; fi
  words+=(--mode=evaluate --config.eval.max_tasks=0)
  if ((DRY_RUN)); then
    run "${words[@]}"
    return
  fi
  run "${words[@]}" | tee "$OUT/$name/score.part"
  [[ $(tail -n 1 "$OUT/$name/score.part") == *=* ]] ||
    fail "the evaluation of $name was stopped; the same command begins it anew"
  mv "$OUT/$name/score.part" "$OUT/$name/score.txt"
  count
}

((BASH_VERSINFO[0] >= 5)) || fail "this is bash $BASH_VERSION; 5 is needed"
OUT=runs/reproduce MINUTES=10 CHUNKS=0 DATA='' TRY=0 DRY_RUN=0 DONE=0
EXPERIMENTS=()
for word; do
  case $word in
    --help)
      usage
      exit
      ;;
    --out=?*) OUT=${word#*=} ;;
    --minutes=*) MINUTES=${word#*=} ;;
    --chunks=*) CHUNKS=${word#*=} ;;
    --data=?*) DATA=${word#*=} ;;
    --try) TRY=1 ;;
    --dry_run) DRY_RUN=1 ;;
    sudoku_fast | sudoku | maze) EXPERIMENTS+=("$word") ;;
    *) fail "unexpected argument '$word'; see launch/reproduce.sh --help" ;;
  esac
done
[[ $MINUTES =~ ^[0-9]+([.][0-9]+)?$ && $MINUTES =~ [1-9] ]] ||
  fail "minutes is '$MINUTES'; it must be a number above 0"
[[ $CHUNKS =~ ^[0-9]+$ ]] || fail "chunks is '$CHUNKS'; it must be a number"
if ((!${#EXPERIMENTS[@]})); then EXPERIMENTS=(sudoku_fast sudoku maze); fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

report
measure
for name in "${EXPERIMENTS[@]}"; do train "$name"; done
report
