#!/usr/bin/env bash
# Connected digits, real speech of six speakers: ./run.sh [--option value ...] [key=value ...]
# You link your copy of the corpus for stage 0.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. "${ASRPRUNE_ROOT:-${PWD%/*/*/*}}/tools/path.sh" # finds asrprune
. options.sh

train_hours=1.0       # (number) how much to train on; one use of each take makes 0.4 h
train_takes=          # (integer) takes of each digit and speaker to train on; the others join the
                      # development and test sets. Empty: all takes that are in neither
dev_uses=2            # how often each development take is used, each time in another sequence
test_uses=10          # how often each test take is used, likewise
snr_db=               # add noise at signal-to-noise ratios between these two: "0 20"; empty: none
download_dir=download # holds fsdd/, the corpus or a link to your copy
config=conf/digits.yaml
token_type=char
vocab_size=40

. parse_options.sh "$@"
. transducer.sh
exp_dir=${exp_dir:-exp/${tag:-$(stem_of "$config")}}
data=(fsdd train dev test) manifests=()
manifest_files manifests "${data[@]}"
begin_stages "$stage" "$stop_stage" "$dry_run"
check_model "${data[@]}" "${overrides[@]}"

stage download "$data_dir" --options download_dir --makes "$download_dir/fsdd" -- \
  run python3 local/takes.py "$download_dir/fsdd"
stage manifests "$data_dir" --options download_dir train_hours train_takes dev_uses test_uses snr_db \
  --makes "${manifests[@]}" "$data_dir/audio" -- \
  run_into "$data_dir/manifests" python3 local/connect.py --audio-dir "$data_dir/audio" \
  --train-hours "$train_hours" ${train_takes:+--train-takes "$train_takes"} \
  --dev-uses "$dev_uses" --test-uses "$test_uses" ${snr_db:+--snr-db $snr_db} "$download_dir/fsdd"
feature_stages "${data[@]}"
data_stages "${data[@]}"
model_stages "$export_networks" "${data[@]}" "${overrides[@]}"
finish
