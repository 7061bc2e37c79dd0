#!/usr/bin/env bash
# mycorpus, from the corpus to word error rates:  ./run.sh [--option value ...] [key=value ...]
# Stage 0 makes nothing but a rehearsal: you put the corpus there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. "${ASRPRUNE_ROOT:-${PWD%/*/*/*}}/tools/path.sh" # finds asrprune
. options.sh
. options_rehearsal.sh
. options_importers.sh

rehearsal_hours=0.4
download_dir=download # holds what local/prepare.py reads: the corpus, or a link to it
min_seconds=0.5       # (number) shorter utterances are not trained on
max_seconds=30        # (number) nor are longer ones

. parse_options.sh "$@"
. transducer.sh
. importers.sh
if [[ $rehearsal == true ]]; then
  default config conf/conformer_tiny.yaml
  default vocab_size 60
  rehearsal_folders "$(stem_of "$config")"
fi
exp_dir=${exp_dir:-exp/${tag:-$(stem_of "$config")}}
begin_stages "$stage" "$stop_stage" "$dry_run"
find_sources
data=(mycorpus "$train_splits" "$dev_splits" "$test_splits")
check_model "${data[@]}" "${overrides[@]}"

download_stage
manifests_stage "${data[@]}"
feature_stages "${data[@]}"
data_stages "${data[@]}"
model_stages "$export_networks" "${data[@]}" "${overrides[@]}"
finish
