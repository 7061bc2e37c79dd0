#!/usr/bin/env bash
# LibriSpeech, from the corpus to word error rates:  ./run.sh [--option value ...] [key=value ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. "${ASRPRUNE_ROOT:-${PWD%/*/*/*}}/tools/path.sh" # finds asrprune
. options.sh
. options_rehearsal.sh

rehearsal_hours=1.0
rehearsal_text=sentences # (sentences|numbers|digits) what is said in it; numbers need less speech
rehearsal_snr_db=     # lowest and highest signal-to-noise ratio in it, such as "5 25"; empty: 15 to 35
rehearsal_utterances_per_speaker= # (number) few give many voices; empty: 8, or more in large sets
rehearsal_dev_hours=  # (number) how much of it to choose by; empty: 0.1 for an hour of training
rehearsal_test_hours= # (number) how much of it to test on; empty: 0.3 for an hour of training
mini=false            # mini LibriSpeech: train on train-clean-5, test on dev-clean-2
musan=false           # mix noise from musan into the training data
train_splits="train-clean-100 train-clean-360 train-other-500" # what to train on
dev_splits="dev-clean dev-other"     # sets whose loss is watched during the training
test_splits="test-clean test-other"  # sets to decode and score
download_dir=download # holds LibriSpeech/, the corpus or a link to your copy, and musan/
speed_perturb=true
avg=1

. parse_options.sh "$@"
. transducer.sh
. local/corpus.sh
other_defaults
data=(librispeech "$train_splits" "$dev_splits" "$test_splits") noise=()
[[ $musan != true ]] || noise=("data.noise.cuts=$data_dir/fbank/musan_cuts.jsonl.gz")
begin_stages "$stage" "$stop_stage" "$dry_run"
check_model "${data[@]}" "${noise[@]}" "${overrides[@]}"

download_stage "${data[@]}"
manifests_stage "${data[@]}"
feature_stages "${data[@]}"
data_stages "${data[@]}"
[[ $musan != true ]] || noise_stage # of the stages after it only the training depends on it
model_stages "$export_networks" "${data[@]}" "${noise[@]}" "${overrides[@]}"
finish
