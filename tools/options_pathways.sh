# shellcheck shell=bash disable=SC2034 # used where run.sh sources it

# Options of recipes in which a second training goes on from the model of the first one, with a mask for
# each language. run.sh sources this file after options.sh, whose options are mostly of the first
# training, the dense model.

pathways_config=conf/pathways.yaml # then go on with a mask for each language; empty: do not
pathways_epochs=      # (integer) how long; empty: as in that configuration, or training.epochs=
pathways_tag=pathways # where: exp/<tag>-pathways
language_steps=600    # (integer) of the classifier by which pathways are chosen from the audio, when
                      # the test sets are decoded once more; 0: decode them with given languages only
epochs=               # (integer) how long to train the dense model; empty: as in its configuration
init_from=            # start its training with the weights of this model, such as averaged.pt of
                      # another one; empty: anew
start_epoch=0         # go back to where this epoch of the dense model starts; 0: go on from the last
                      # checkpoint, as pathways always do
epoch=0               # last epoch of the dense model to average; 0: the newest. Pathways always use
                      # the newest
avg=1                 # how many epochs to average, of both
export_networks=      # languages whose pathways stage 10 exports; empty: all. Without pathways: whole,
                      # sparsities and sizes, as "whole 0.7 5MB"
