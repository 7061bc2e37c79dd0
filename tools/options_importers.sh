# shellcheck shell=bash disable=SC2034 # used where run.sh sources it
# Where utterances come from: local/prepare.py reads download/, or one of --tables, --kaldi, --cuts
# and --lhotse says what there is. Names that begin with train are trained on, with dev or val chosen
# by, all others tested on.

# Options of recipes whose stages 0 and 1 are those of importers.sh. run.sh sources this file after
# options.sh and options_rehearsal.sh.

tables=               # TSV, CSV or JSONL with the columns path and text, and if you have them id,
                      # speaker, language, start, duration: "train=a.tsv dev=b.tsv test=c.tsv"
kaldi=                # Kaldi's data directories: "train=data/train dev=data/dev test=data/test"
cuts=                 # lhotse's cuts, with features or without: "train=a_cuts.jsonl.gz test=..."
lhotse=               # what follows "lhotse prepare", but for the last folder: "yesno /my/yesno"
audio_dir=            # what relative paths of audio begin at; empty: where tables are, or is found
ignore_features=false # compute features anew, though --cuts have some
empty_text=skip       # (error|skip) stop at utterances without a text, or leave them out and list them
invisible_characters='strip' # (strip|strip-all|keep) zero-width spaces, marks and controls in texts:
                      # take out those that change no reading, all, or none; they are named anyway
longest=300           # (number) an utterance of more seconds, in any set, is an error
train_splits="train"  # what to train on
dev_splits="dev"      # sets whose loss is watched during the training; may be empty
test_splits="test"    # sets to decode and score
