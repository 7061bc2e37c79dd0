#!/usr/bin/env bash
# LibriSpeech, from the corpus to word error rates:  ./run.sh [--option value ...] [key=value ...]
#
# Stages: 0 download, 1 manifests, 2 features, 3 validate, 4 tokenizer, 5 train, 6 average,
# 8 decode, 9 score. A stage that is done is skipped; one whose options changed runs again, as do
# those after it. Whatever stopped a run, the same command goes on from there. Words of the form
# key=value, such as training.epochs=3, change the configuration.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=download        # first stage to run, a name or a number
stop_stage=score      # last stage to run
dry_run=false         # print the commands and load the configuration, run nothing
rehearsal=false       # the same stages on a little synthetic speech, all below rehearsal/
rehearsal_hours=1.0   # (number) how much of it to train on
rehearsal_test_hours= # (number) how much of it to test on; empty: 0.3 for an hour of training
mini=false            # mini LibriSpeech: train on train-clean-5, test on dev-clean-2
train_splits="train-clean-100 train-clean-360 train-other-500" # what to train on
dev_splits="dev-clean dev-other"     # sets whose loss is watched during the training
test_splits="test-clean test-other"  # sets to decode and score
download_dir=download # holds LibriSpeech/, the corpus or a link to your copy, and musan/
data_dir=data         # what stages 1 to 4 make
config=conf/conformer.yaml # model and training
tag=                  # name of the experiment; empty: the stem of --config
exp_dir=              # what stages 5 to 9 make; empty: exp/<tag>
speed_perturb=true    # train on copies at 0.9 and 1.1 times the speed as well
musan=false           # mix noise from musan into the training data
bad_audio=error       # (error|skip) stop at audio that cannot be read, or leave it out and list it
allow_rejected=0      # (number) share of a set's cuts, 0 to 1, that may be defective and left out
token_type=bpe        # (bpe|char) what the model predicts
vocab_size=500        # symbols of the bpe tokenizer
bpe_model=            # take this sentencepiece model instead of training one
world_size=1          # training processes, one a GPU
max_duration=         # (number) seconds of speech in a batch; empty: as in the configuration
epochs=               # (integer) how long to train; empty: as in the configuration
start_epoch=0         # go back to where this epoch starts; 0: go on from the last checkpoint
epoch=0               # last epoch to average; 0: the newest
avg=1                 # how many epochs to average
use_averaged_model=true # average over all steps of these epochs, not only over their last ones
decoding_method=greedy_search # (greedy_search|modified_beam_search|fast_beam_search ...) searches
streaming=            # (true|false) decode chunk by chunk; empty: as in the configuration
jobs=0                # processes for data preparation; 0: one a core

. ./path.sh
. parse_options.sh "$@"
if [[ $rehearsal == true ]]; then
  default train_splits train-clean-100
  default dev_splits dev-clean && default test_splits test-clean
  default download_dir rehearsal/download
  default data_dir rehearsal/data
  default config conf/rehearsal.yaml
  default vocab_size 100 && default avg 2
elif [[ $mini == true ]]; then
  default train_splits train-clean-5
  default dev_splits dev-clean-2 && default test_splits dev-clean-2
  default data_dir data/mini
fi
stem=${config##*/} && stem=${stem%.*}
[[ $mini != true ]] || stem=mini-$stem
[[ $rehearsal != true || $stem == rehearsal* ]] || stem=rehearsal-$stem
[[ $rehearsal != true ]] || default exp_dir "rehearsal/exp/${tag:-$stem}"
exp_dir=${exp_dir:-exp/${tag:-$stem}}
[[ -f $config ]] || fail "--config: $config does not exist; there are: $(echo conf/*.yaml)"
[[ $jobs -gt 0 ]] || jobs=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
. stages.sh
. local/corpus.sh # stages 0 to 2, and the names of what all stages make of the splits

lang_dir=$data_dir/lang_$token_type
[[ $token_type != bpe ]] || lang_dir+=_$([[ -n $bpe_model ]] && echo given || echo "$vocab_size")
training_words=("data.dev=[$(IFS=, && echo "${dev[*]}")]") decoding_words=() scores=()
[[ $musan != true ]] || training_words+=("data.noise.cuts=$data_dir/fbank/musan_cuts.jsonl.gz")
for word in "${overrides[@]}"; do
  [[ $word == decoding.* ]] && decoding_words+=("$word") || training_words+=("$word")
done
training=(--config "$config" --exp-dir "$exp_dir" --manifest-dir "$data_dir/valid"
  --lang-dir "$lang_dir" --world-size "$world_size" ${max_duration:+--max-duration "$max_duration"}
  ${epochs:+--epochs "$epochs"} --start-epoch "$start_epoch" "${training_words[@]}")
preflight() { run asrprune train --dry-run true "${training[@]}" "${decoding_words[@]}"; }

stage download "$data_dir" --options rehearsal_hours rehearsal_test_hours download_dir \
  --makes "${corpora[@]}" -- download
stage manifests "$data_dir" --options download_dir --makes "${manifests[@]}" -- prepare
for split in "${splits[@]}"; do features "$split"; done

stage validate "$data_dir" --options train_splits dev_splits test_splits allow_rejected \
  --needs "${cuts[@]}" --makes "${valid[@]}" "$data_dir/valid/librispeech_statistics.json" -- \
  run asrprune validate --corpus librispeech --manifest-dir "$data_dir/fbank" \
  --out-dir "$data_dir/valid" --train "${train[@]}" --eval "${evaluation[@]}" \
  --allow-rejected "$allow_rejected" --jobs "$jobs"

stage tokenizer "$lang_dir" --options token_type vocab_size bpe_model --needs "${valid[0]}" \
  --makes "$lang_dir/tokens.txt" -- \
  run asrprune tokenizer --manifest "${valid[0]}" --type "$token_type" --vocab-size "$vocab_size" \
  ${bpe_model:+--bpe-model "$bpe_model"} --out-dir "$lang_dir"

[[ $musan != true ]] || noise_features # stage 2 musan; only the training depends on it

stage train "$exp_dir" --options config max_duration epochs start_epoch training_words \
  --after "2 musan" --texts "$config" --needs "${valid[@]}" "$lang_dir/tokens.txt" \
  --makes "$exp_dir/epoch-${epochs:-*}.pt" -- \
  run asrprune train "${training[@]}"

stage average "$exp_dir" --options epoch avg use_averaged_model \
  --needs "$exp_dir/epoch-*.pt" --makes "$exp_dir/averaged.pt" -- \
  run asrprune average --exp-dir "$exp_dir" --epoch "$epoch" --avg "$avg" \
  --use-averaged-model "$use_averaged_model"

for method in $decoding_method; do
  results=$exp_dir/$method && scores+=("$results/score.txt")
  recogs=("${test[@]/%/-*.txt}") && recogs=("${recogs[@]/#/$results/recogs-}")
  stage decode "$results" --part "$method" --options test_splits streaming decoding_words \
    --needs "$exp_dir/averaged.pt" "$lang_dir/tokens.txt" "${valid[@]}" --makes "${recogs[@]}" -- \
    run asrprune decode --exp-dir "$exp_dir" --manifest-dir "$data_dir/valid" \
    --lang-dir "$lang_dir" --test-sets "${test[@]}" --decoding-method "$method" \
    ${streaming:+--streaming "$streaming"} "${decoding_words[@]}"
  stage score "$results" --part "$method" --options test_splits --needs "${recogs[@]}" \
    --makes "$results/score.txt" -- run_to "$results/score.txt" \
    asrprune score --exp-dir "$exp_dir" --decoding-method "$method" --test-sets "${test[@]}"
done
finish "${scores[@]}"
