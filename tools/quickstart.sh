#!/usr/bin/env bash
# Show data pruning and a supernet at work on two CPU cores, from a fresh checkout, in some minutes:
# make the environment and a small corpus of synthetic speech; train on all data and on less data,
# side by side, and score both; then train one supernet, take networks of three sizes out of it, and
# run them in sherpa-onnx. The same command goes on where it was stopped. Options go to both.
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
folder=rehearsal/quickstart
./run.sh --rehearsal true --rehearsal-text digits --rehearsal-hours 0.5 --rehearsal-dev-hours 0.02 \
  --rehearsal-test-hours 0.2 --download-dir $folder/download --data-dir $folder/data \
  --speed-perturb false --token-type char --config conf/rehearsal_supernet.yaml --streaming true \
  --exp-dir $folder/supernet --stop-stage export --export-networks "whole 0.5 0.9" \
  --export-int8-loss 1 training.epochs=8 model.encoder_options.dim=96 \
  model.encoder_options.ffn_dim=384 model.predictor_options.dim=96 model.joiner_dim=96 \
  training.optimizer.lr=1.7e-3 "$@" >$folder/supernet.log
if [[ ! $folder/sizes.md -nt $folder/supernet/onnx/export.json ]]; then
  asrprune bench export --onnx-dir $folder/supernet/onnx --manifest-dir $folder/data/valid \
    --lang-dir $folder/data/lang_char --test-set test-clean >$folder/sizes.md.part
  mv $folder/sizes.md.part $folder/sizes.md
fi
printf '%s\n' '' 'Networks of one supernet, in int8, in sherpa-onnx:'
awk -F' *[|] *' '
  NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
  NR == 1 || $at["runs"] ~ /^int8/ {
    printf "%-8s  %-5s  %-20s  %s\n", $at["network"], $at["MB"], $at["WER"], $at["real-time factor"]
  }' $folder/sizes.md
folder=$PWD/$folder
printf '%s\n' '' 'Synthetic speech: error rates of real speech are higher.' \
  "The whole report:           $folder/REPORT.md" \
  "Who was kept, in each epoch: $folder/compare-kept.png" \
  "The networks of each size:   $folder/supernet/onnx, and more about them in $folder/sizes.md" \
  "The commands behind it:      $folder/exp/*/run.sh"
if asrprune report data "$folder/exp/recommended-0.7-seed0" >/dev/null; then
  printf '%s\n' "The hardest cuts, to hear:   $folder/exp/recommended-0.7-seed0/pruning/report.html"
fi
