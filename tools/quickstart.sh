#!/usr/bin/env bash
# Show data pruning at work on two CPU cores, from a fresh checkout, in some minutes: make the
# environment and a small corpus of synthetic speech; train on all data and on less data, side by
# side; score both. The same command goes on where it was stopped. Options go to asrprune compare.
#
#   tools/quickstart.sh
#   tools/quickstart.sh training.epochs=3
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/tools/setup_env.sh"
cd "$root/egs/librispeech/ASR"
export PATH=$root/.venv/bin:$PATH
jobs=$(env -u OMP_NUM_THREADS nproc 2>/dev/null || echo 2) # nproc heeds that variable
asrprune compare conf/compare_quickstart.yaml --jobs "$((jobs < 2 ? 1 : 2))" "$@"
folder=$PWD/rehearsal/quickstart
printf '%s\n' '' 'Synthetic speech: error rates of real speech are higher.' \
  "The whole report:           $folder/REPORT.md" \
  "Who was kept, in each epoch: $folder/compare-kept.png" \
  "The commands behind it:      $folder/exp/*/run.sh"
