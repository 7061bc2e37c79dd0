#!/usr/bin/env bash
# CommonVoice in several languages, one model: ./run.sh [--option value ...] [key=value ...]
#
# Stages: 0 download (by hand: it checks what is there), 1 manifests, 2 features, 3 validate,
# 4 tokenizer, 5 train, 6 average, 7 search (where --search-budgets ask for it), 8 decode, 9 score,
# and with --stop-stage export: 10 export. A stage that is done is skipped; one whose options changed
# runs again, as do those after it. Whatever stopped a run, the same command goes on from there.
# Words of the form key=value, such as training.epochs=3, change the configuration.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=download        # first stage to run, a name or a number
stop_stage=score      # last stage to run
dry_run=false         # print the commands and load the configuration, run nothing
langs="en fr it nl"   # languages, as CommonVoice names them
release=              # which of download/cv-corpus-*; empty: the newest
rehearsal=false       # the same stages on a little synthetic speech, all below rehearsal/
rehearsal_hours=0.5   # (number) how much of it to train on in English; others have less (README)
rehearsal_text=numbers # (sentences|numbers) what is said in it; numbers need less speech
rehearsal_dev_hours=  # (number) how much of each language to choose by; empty: 0.1 for an hour
rehearsal_test_hours= # (number) how much of each language to test on; empty: 0.3 for an hour
train_splits=         # tables to train on, as train-fr; empty: train-<language> of each
dev_splits=           # sets whose loss is watched; empty: dev-<language> of each
test_splits=          # sets to decode and score; empty: test-<language> of each
download_dir=download # holds cv-corpus-<version>/<language>, or links to your copies
data_dir=data         # what stages 1 to 4 make
config=conf/emformer_streaming.yaml # model and training
pathways_config=conf/pathways.yaml # then go on with a mask for each language; empty: do not
pathways_epochs=      # (integer) how long; empty: as in that configuration, or training.epochs=
pathways_tag=pathways # where: exp/<tag>-pathways
tag=                  # name of the experiment; empty: the stem of --config
exp_dir=              # what stages 5 to 10 make; empty: exp/<tag>
speed_perturb=false   # train on copies at 0.9 and 1.1 times the speed as well
bad_audio=error       # (error|skip) stop at clips that are missing or cannot be read, or leave them
                      # out and list them
allow_rejected=0      # (number) share of a set, 0 to 1, that may be defective and left out; a tenth
                      # may always be for its text
min_seconds=          # (number) shorter utterances are not trained on; empty: 0.5
max_seconds=          # (number) nor are longer ones; empty: 30
drop_words=           # words to leave out of the texts of all sets: "<unk> [noise]"; empty: none
token_type=bpe        # (bpe|char) what the model predicts
vocab_size=1000       # symbols of the bpe tokenizer, which all languages share
bpe_model=            # take this sentencepiece model instead of training one
extend_lang=          # take the tokenizer of this folder, and add symbols for letters that it lacks
bpe_balance=0.5       # (number) how the tokenizer weighs languages by their text: 1 as they are, 0
                      # all alike; else it has long pieces for large languages and letters for others
max_unknown=0         # (number) share of a language's letters that the tokenizer may not know; of
                      # evaluation sets at least 0.02
world_size=1          # training processes on each machine, one a GPU
nodes=1               # machines, of a Slurm job (tools/slurm.sh)
max_duration=         # (number) seconds of speech in a batch; empty: as in the configuration
epochs=               # (integer) how long to train the dense model; empty: as in its configuration
init_from=            # start its training with the weights of this model, such as averaged.pt of
                      # another one; empty: anew
start_epoch=0         # go back to where this epoch of the dense model starts; 0: go on from the last
                      # checkpoint, as pathways always do
epoch=0               # last epoch of the dense model to average; 0: the newest, as of pathways always
avg=1                 # how many epochs to average, of both
use_averaged_model=true # average over all steps of these epochs, not only over their last ones
search_budgets=       # sizes, MMACs, ms or sparsities to search sub-networks of: "0.7 0.9"; empty: none
search_seconds=       # (number) of speech of the first development set to search on; empty: all
search_generations=30 # of 16 evaluations for each of the search's budgets
search_rerank=5       # decode so many of the lowest losses, and take the lowest WER; 0: none
search_sample_wer=0   # decode so many of each size too: does a lower loss mean a lower WER?
language_steps=600    # (integer) of the classifier by which pathways are chosen from the audio, when
                      # the test sets are decoded once more; 0: decode them with given languages only
decoding_method=greedy_search # (greedy_search|modified_beam_search|fast_beam_search ...) searches
streaming=true        # decode chunk by chunk
export_networks=      # languages whose pathways stage 10 exports; empty: all. Without pathways: whole,
                      # sparsities and sizes, as "whole 0.7 5MB"
export_int8_loss=     # (number) share of float32's errors on the development sets that int8 may add in
                      # stage 10 (more by chance), else matrices stay float32; empty: 0.01; 1: do not compare
jobs=0                # processes for data preparation; 0: one a core

. ./path.sh
. parse_options.sh "$@"
if [[ $rehearsal == true ]]; then
  default download_dir rehearsal/download && default release cv-corpus-0.0-rehearsal
  default data_dir rehearsal/data
  default config conf/rehearsal.yaml && default pathways_config conf/rehearsal_pathways.yaml
  default vocab_size 150 && default avg 2 && default language_steps 300
  if [[ ! -e /dev/nvidia0 && -z ${option_given[world_size]-} ]]; then
    world_size=2 # so small a model uses one core a process; its batches stay 14 s in all
    default max_duration 7
  fi
fi
stem=${config##*/} && stem=${stem%.*}
[[ $rehearsal != true || $stem == rehearsal* ]] || stem=rehearsal-$stem
[[ $rehearsal != true ]] || default exp_dir "rehearsal/exp/${tag:-$stem}"
exp_dir=${exp_dir:-exp/${tag:-$stem}}
read -ra languages <<<"$langs"
[[ ${#languages[@]} -gt 0 ]] || fail "--langs names no language, such as 'en fr'"
train_splits=${train_splits:-${languages[*]/#/train-}}
dev_splits=${dev_splits:-${languages[*]/#/dev-}}
test_splits=${test_splits:-${languages[*]/#/test-}}
corpus=commonvoice added_words=() second_config=$pathways_config second_dir=$exp_dir-$pathways_tag
. stages.sh
. transducer.sh   # stages 2 to 10, and the names of what all stages make of the splits
. local/corpus.sh # stages 0 and 1
find_release
check_splits

for lang in "${languages[@]}"; do download_stage "$lang"; done
for lang in "${languages[@]}"; do manifests_stage "$lang"; done
for split in "${splits[@]}"; do features "$split"; done
data_stages
model_stages
if [[ -n $second_config ]]; then
  second_stages pathways
  [[ $language_steps -eq 0 || ${#languages[@]} -lt 2 ]] || chosen_stages pathways "$second_dir"
  pathways_report "$second_dir"
fi
finish "${scores[@]}"
