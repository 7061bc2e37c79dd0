#!/usr/bin/env bash
# CommonVoice in several languages, one model: ./run.sh [--option value ...] [key=value ...]
# Stage 0 checks what you downloaded by hand.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. "${ASRPRUNE_ROOT:-${PWD%/*/*/*}}/tools/path.sh" # finds asrprune
. options.sh
. options_rehearsal.sh
. options_pathways.sh

langs="en fr it nl"   # languages, as CommonVoice names them
release=              # which of download/cv-corpus-*; empty: the newest
rehearsal_hours=0.5   # (number) how much of it to train on in English; others have less (README)
rehearsal_dev_hours=  # (number) how much of each language to choose by; empty: 0.1 for an hour
rehearsal_test_hours= # (number) how much of each language to test on; empty: 0.3 for an hour
train_splits=         # tables to train on, as train-fr; empty: train-<language> of each
dev_splits=           # sets whose loss is watched; empty: dev-<language> of each
test_splits=          # sets to decode and score; empty: test-<language> of each
download_dir=download # holds cv-corpus-<version>/<language>, or links to your copies
config=conf/emformer_streaming.yaml
allow_rejected=0      # (number) share of a set, 0 to 1, that may be defective and left out; a tenth
                      # may always be for its text
vocab_size=1000       # symbols of the bpe tokenizer, which all languages share
bpe_balance=0.5       # (number) how the tokenizer weighs languages by their text: 1 as they are, 0
                      # all alike; else it has long pieces for large languages and letters for others
max_unknown=0         # (number) share of a language's letters that the tokenizer may not know; of
                      # evaluation sets at least 0.02
streaming=true        # decode chunk by chunk

. parse_options.sh "$@"
. pathways.sh
. local/corpus.sh
other_defaults
data=(commonvoice "$train_splits" "$dev_splits" "$test_splits") corpus_dir=''
begin_stages "$stage" "$stop_stage" "$dry_run"
check_models "${data[@]}" "${overrides[@]}"
find_corpus corpus_dir "${data[@]}"
read -ra languages <<<"$langs"

for lang in "${languages[@]}"; do download_stage "$lang" "$corpus_dir" "${data[@]}"; done
for lang in "${languages[@]}"; do manifests_stage "$lang" "$corpus_dir" "${data[@]}"; done
feature_stages "${data[@]}"
data_stages "${data[@]}" "$bpe_balance"
both_models "${#languages[@]}" "${data[@]}" "${overrides[@]}"
finish
