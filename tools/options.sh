# shellcheck shell=bash disable=SC2034 # used where run.sh sources it
# Stages: 0 download, 1 manifests, 2 features, 3 validate, 4 tokenizer, 5 train, 6 average, 7 search
# (where --search-budgets ask for it), 8 decode, 9 score, and with --stop-stage export: 10 export. A
# stage that is done is skipped; one whose options changed runs again, as do those after it. Whatever
# stopped a run, the same command goes on from there. Words of the form key=value, such as
# training.epochs=3, change the configuration.

# The options of all recipes, with the head above as --help shows it. run.sh sources this file, and sets
# below it other defaults, other comments, and options of its own; see parse_options.sh.

stage=download        # first stage to run, a name or a number
stop_stage=score      # last stage to run
dry_run=false         # print the commands and load the configuration, run nothing
download_dir=download # holds the corpus, or a link to your copy
data_dir=data         # what stages 1 to 4 make
config=conf/conformer.yaml # model and training
tag=                  # name of the experiment; empty: the stem of --config
exp_dir=              # what stages 5 to 10 make; empty: exp/<tag>
speed_perturb=false   # train on copies at 0.9 and 1.1 times the speed as well
bad_audio=error       # (error|skip) stop at audio that is missing or cannot be read, or leave it out
                      # and list it
allow_rejected=0      # (number) share of a set's cuts, 0 to 1, that may be defective and left out
min_seconds=          # (number) shorter utterances are not trained on; empty: 0.5
max_seconds=          # (number) nor are longer ones; empty: 30
drop_words=           # words to leave out of the texts of all sets: "<unk> [noise]"; empty: none
token_type=bpe        # (bpe|char) what the model predicts; char where a word is a character or two
vocab_size=500        # symbols of the bpe tokenizer
bpe_model=            # take this sentencepiece model instead of training one
extend_lang=          # take the tokenizer of this folder, and add symbols for letters that it lacks
max_unknown=0.02      # (number) share of a set's characters, 0 to 1, that the tokenizer may not know
world_size=1          # training processes on each machine, one a GPU
nodes=1               # machines, of a Slurm job (tools/slurm.sh)
max_duration=         # (number) seconds of speech in a batch; empty: as in the configuration
epochs=               # (integer) how long to train; empty: as in the configuration
init_from=            # start the training with the weights of this model, such as averaged.pt of
                      # another one; empty: anew
start_epoch=0         # go back to where this epoch starts; 0: go on from the last checkpoint
epoch=0               # last epoch to average; 0: the newest
avg=2                 # how many epochs to average
use_averaged_model=true # average over all steps of these epochs, not only over their last ones
search_budgets=       # sizes, MMACs, ms or sparsities to search sub-networks of: "0.7 0.9"; empty: none
search_seconds=       # (number) of speech of the first development set to search on; empty: all
search_generations=30 # of 16 evaluations for each of the search's budgets
search_rerank=5       # decode so many of the lowest losses, and take the lowest WER; 0: none
search_sample_wer=0   # decode so many of each size too: does a lower loss mean a lower WER?
decoding_method=greedy_search # (greedy_search|modified_beam_search|fast_beam_search ...) searches
streaming=            # (true|false) decode chunk by chunk; empty: as in the configuration
export_networks=      # what stage 10 exports: whole, sparsities and sizes, as "whole 0.7 5MB"; empty:
                      # the whole
export_int8_loss=     # (number) share of float32's errors on the development sets that int8 may add in
                      # stage 10 (more by chance), else matrices stay float32; empty: 0.01; 1: do not compare
jobs=0                # processes for data preparation; 0: one a core
