# shellcheck shell=bash disable=SC2154 # the options of run.sh
# What the recipes for transducers share: the names of what their stages make, and stages 2 to 10.
# Stages 0 and 1 are in run.sh. A run.sh sources this file after stages.sh, and then calls in order:
#
#   features SPLIT             for each of the splits
#   data_stages, model_stages
#   second_stages PART         if a second training goes on from the model of the first training
#   chosen_stages PART FOLDER  if the second training has pathways; needs the option language_steps
#   pathways_report FOLDER     if the second training has pathways
#   finish "${scores[@]}"
#
# Beside its options, run.sh sets these variables before it sources this file:
#
#   corpus         the first word of the manifests' names
#   train_splits, dev_splits, test_splits, where they are no options
#   added_words    an array: key=value words that come before those of the command line
#   second_config  the configuration of a second training, if there may be one; empty: none. It alone
#                  gets the words weight_pruning.*, and decoding.language* when it is decoded
#   second_dir     what stages 5 to 10 of the second training make
#
# Recipes of several languages have the option bpe_balance as well, and those with a second training
# pathways_epochs.

[[ -f $config ]] || fail "--config: $config does not exist; there are: $(echo conf/*.yaml)"
# nproc answers with OMP_NUM_THREADS where that is set
[[ $jobs -gt 0 ]] || jobs=$(env -u OMP_NUM_THREADS nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)

read -ra train <<<"$train_splits"
read -ra dev <<<"$dev_splits"
read -ra test <<<"$test_splits"
read -ra dropped <<<"$drop_words"
splits=() evaluation=() manifests=() cut_manifests=()
valid=("$data_dir/valid/${corpus}_cuts_train.jsonl.gz")
for split in "${dev[@]}" "${test[@]}"; do
  [[ " ${evaluation[*]} " != *" $split "* ]] || continue # a set may be for both
  evaluation+=("$split")
  valid+=("$data_dir/valid/${corpus}_cuts_$split.jsonl.gz")
done
for split in "${train[@]}" "${evaluation[@]}"; do
  [[ " ${splits[*]} " != *" $split "* ]] || continue
  splits+=("$split")
  manifests+=("$data_dir/manifests/${corpus}_supervisions_$split.jsonl.gz")
  cut_manifests+=("$data_dir/fbank/${corpus}_cuts_$split.jsonl.gz")
done

if [[ -n $search_budgets ]]; then
  [[ ${#dev[@]} -gt 0 ]] || fail "--search-budgets: --dev-splits must name a set to search on"
elif [[ $first_stage -eq 7 || $stop_stage =~ ^(7|search)$ ]]; then
  fail "there is no stage 7 (search) without --search-budgets, such as '0.5 0.8' or '5MB 10MB'"
fi

[[ $export_int8_loss =~ ^(0|0?\.[0-9]+|1(\.0*)?)?$ ]] ||
  fail "--export-int8-loss $export_int8_loss: must be a share, 0 to 1, such as 0.01"

lang_dir=$data_dir/lang_$token_type
[[ $token_type != bpe ]] || lang_dir+=_$([[ -n $bpe_model ]] && echo given || echo "$vocab_size")
[[ -z $extend_lang ]] || lang_dir=$data_dir/lang_extended
training_words=("data.dev=[$(IFS=, && echo "${dev[*]}")]" "${added_words[@]}") decoding_words=()
masking_words=() language_words=() # which are of the second training, where there is one
epochs_word=                       # and what training.epochs= says, of both
for word in "${overrides[@]}"; do
  case $word in
    decoding.language*) language_words+=("$word") ;;
    decoding.*) decoding_words+=("$word") ;;
    weight_pruning.*) masking_words+=("$word") ;;
    *) training_words+=("$word") ;;
  esac
  [[ $word != training.epochs=* ]] || epochs_word=${word#*=}
done
if [[ -n ${second_config-} ]]; then
  second_words=("${training_words[@]}" "training.init_from=$exp_dir/averaged.pt" "${masking_words[@]}")
  second_decoding=("${decoding_words[@]}" "${language_words[@]}")
else
  training_words+=("${masking_words[@]}") decoding_words+=("${language_words[@]}")
fi

# averaged_of OPTION: how many epochs are averaged, in "averaged", of a training whose option says how
# many it has. As many as --avg says; its default is lowered where they are fewer.
averaged_of() {
  local value=${!1} name=--${1//_/-}
  [[ -n $value ]] || value=$epochs_word name=training.epochs
  averaged=$avg
  if [[ $value =~ ^[0-9]+$ && $value -lt $avg ]]; then
    [[ -z ${option_given[avg]-} ]] ||
      fail "--avg $avg: more epochs than $name=$value trains; lower --avg or raise $name"
    averaged=$value
  fi
}
averaged_of epochs
first_avg=$averaged

# training_of CONFIG FOLDER EPOCHS START_EPOCH INIT_FROM WORD...: the words of a training
training_of() {
  training=(--config "$1" --exp-dir "$2" --manifest-dir "$data_dir/valid"
    --lang-dir "$lang_dir" --world-size "$world_size" --nodes "$nodes"
    ${max_duration:+--max-duration "$max_duration"} ${3:+--epochs "$3"} --start-epoch "$4"
    ${5:+--init-from "$5"} "${@:6}")
}
# a training that has begun needs it no more
[[ -z $init_from || -f $init_from ]] || compgen -G "$exp_dir/*.pt" >/dev/null ||
  fail "--init-from: $init_from does not exist"
training=() scores=() # and what the last stage makes
if [[ -n $search_budgets ]]; then
  read -ra budgets <<<"$search_budgets"
  searching=(--exp-dir "$exp_dir" --manifest-dir "$data_dir/valid" --lang-dir "$lang_dir"
    --dev-set "${dev[0]}" --budgets "${budgets[@]}" --rerank "$search_rerank")
  search_check=(--config "$config" "${searching[@]}" "${training_words[@]}")
fi
training_of "$config" "$exp_dir" "$epochs" "$start_epoch" "$init_from" "${training_words[@]}"
first_check=("${training[@]}" "${decoding_words[@]}") second_check=()
if [[ -n ${second_config-} ]]; then
  averaged_of pathways_epochs
  second_avg=$averaged
  training_of "$second_config" "$second_dir" "$pathways_epochs" 0 '' "${second_words[@]}"
  second_check=("${training[@]}" "${second_decoding[@]}")
fi
preflight() {
  if [[ -n ${second_config-} ]]; then
    [[ -f $second_config ]] || fail "$second_config does not exist; there are: $(echo conf/*.yaml)"
    run asrprune train --dry-run true "${second_check[@]}"
  fi
  run asrprune train --dry-run true "${first_check[@]}"
  [[ -n $search_budgets ]] || return 0
  run asrprune search --dry-run true "${search_check[@]}"
}

features() { # features SPLIT; the speed of development and test sets is never changed
  local split=$1 speed_perturb=$speed_perturb
  [[ " $train_splits " == *" $split "* ]] || speed_perturb=false
  stage features "$data_dir" --part "$split" --options speed_perturb bad_audio \
    --needs "$data_dir/manifests/${corpus}_supervisions_$split.jsonl.gz" \
    --makes "$data_dir/fbank/${corpus}_cuts_$split.jsonl.gz" \
    "$data_dir/fbank/${corpus}_feats_$split" -- \
    run asrprune fbank --corpus "$corpus" --splits "$split" \
    --manifest-dir "$data_dir/manifests" --out-dir "$data_dir/fbank" \
    --speed-perturb "$speed_perturb" --bad-audio "$bad_audio" --jobs "$jobs"
}

data_stages() { # stages 3 and 4
  stage validate "$data_dir" --options train_splits dev_splits test_splits allow_rejected \
    min_seconds max_seconds drop_words --needs "${cut_manifests[@]}" \
    --makes "${valid[@]}" "$data_dir/valid/${corpus}_statistics.json" -- \
    run asrprune validate --corpus "$corpus" --manifest-dir "$data_dir/fbank" \
    --out-dir "$data_dir/valid" --train "${train[@]}" --eval "${evaluation[@]}" \
    --allow-rejected "$allow_rejected" ${min_seconds:+--min-seconds "$min_seconds"} \
    ${max_seconds:+--max-seconds "$max_seconds"} \
    ${dropped[0]+--drop-words "${dropped[@]}"} --jobs "$jobs"

  stage tokenizer "$lang_dir" --options token_type vocab_size bpe_model extend_lang bpe_balance \
    max_unknown \
    --needs "${valid[@]}" --makes "$lang_dir/tokens.txt" -- \
    run asrprune tokenizer --manifest "${valid[0]}" --type "$token_type" \
    --vocab-size "$vocab_size" ${bpe_model:+--bpe-model "$bpe_model"} \
    ${extend_lang:+--extend "$extend_lang"} \
    ${bpe_balance:+--balance "$bpe_balance"} --max-unknown "$max_unknown" \
    --allow-rejected "$allow_rejected" --others "${valid[@]:1}" --out-dir "$lang_dir"
}

search_networks() { # stage 7; what decodes the whole model does not depend on it
  stage search "$exp_dir" --aside --options search_budgets search_seconds search_generations \
    search_rerank search_sample_wer dev_splits \
    --needs "$exp_dir/averaged.pt" "$lang_dir/tokens.txt" "${valid[@]}" \
    --makes "$exp_dir/pareto.json" -- \
    run asrprune search "${searching[@]}" ${search_seconds:+--max-seconds "$search_seconds"} \
    --generations "$search_generations" \
    --sample-wer "$search_sample_wer" --wer true
}

# training_stages PART CONFIG FOLDER EPOCHS START_EPOCH INIT_FROM LAST_EPOCH AVG: stages 5 to 10 of a
# training of "training_words", decoded with "decoding_words"; the first one has no PART. The names are
# those of the options, for the sentinels. Features of noise, if any, are of stage 2 musan.
training_stages() {
  local part=$1 config=$2 exp_dir=$3 epochs=$4 start_epoch=$5 init_from=$6 epoch=$7 avg=$8
  local after method name results
  local -a training recogs
  training_of "$config" "$exp_dir" "$epochs" "$start_epoch" "$init_from" "${training_words[@]}"
  [[ -n $part ]] && after="6 " || after="2 musan"
  stage train "$exp_dir" ${part:+--part "$part"} --after "$after" \
    --options config max_duration epochs start_epoch init_from training_words \
    --texts "$config" --needs "${valid[@]}" "$lang_dir/tokens.txt" \
    --makes "$exp_dir/epoch-${epochs:-*}.pt" -- \
    run asrprune train "${training[@]}"

  stage average "$exp_dir" ${part:+--part "$part"} --options epoch avg use_averaged_model \
    --needs "$exp_dir/epoch-*.pt" --makes "$exp_dir/averaged.pt" -- \
    run asrprune average --exp-dir "$exp_dir" --epoch "$epoch" --avg "$avg" \
    --use-averaged-model "$use_averaged_model"

  [[ -z $search_budgets || -n $part ]] || search_networks

  for method in $decoding_method; do
    name=$method${part:+-$part} # ends in the part of the stages before
    results=$exp_dir/$method && scores+=("$results/score.txt")
    recogs=("${test[@]/%/-*.txt}") && recogs=("${recogs[@]/#/$results/recogs-}")
    stage decode "$results" --part "$name" --options test_splits streaming decoding_words \
      --needs "$exp_dir/averaged.pt" "$lang_dir/tokens.txt" "${valid[@]}" \
      --makes "${recogs[@]}" -- \
      run asrprune decode --exp-dir "$exp_dir" --manifest-dir "$data_dir/valid" \
      --lang-dir "$lang_dir" --test-sets "${test[@]}" --decoding-method "$method" \
      ${streaming:+--streaming "$streaming"} "${decoding_words[@]}"
    stage score "$results" --part "$name" --options test_splits --needs "${recogs[@]}" \
      --makes "$results/score.txt" -- run_to "$results/score.txt" \
      asrprune score --exp-dir "$exp_dir" --decoding-method "$method" --test-sets "${test[@]}"
  done
  export_stage "$part"
}

export_stage() { # stage 10; what networks are named is for the second training, if there is one
  local part=$1 pareto=''
  local -a networks dev_cuts=() comparing=() # of int8 with float32
  read -ra networks <<<"$export_networks"
  [[ -z ${second_config-} || -n $part ]] || networks=(whole)
  # sizes are those that the search has found, where there is one
  [[ -z $search_budgets || -n $part || " ${networks[*]}" != *' '[0-9]* ]] ||
    pareto=$exp_dir/pareto.json
  if [[ ! $export_int8_loss =~ ^1 && ${#dev[@]} -gt 0 ]]; then
    dev_cuts=("${dev[@]/#/$data_dir/valid/${corpus}_cuts_}") && dev_cuts=("${dev_cuts[@]/%/.jsonl.gz}")
    comparing=(--manifest-dir "$data_dir/valid" --dev-sets "${dev[@]}"
      ${export_int8_loss:+--int8-loss "$export_int8_loss"})
  fi
  stage export "$exp_dir" ${part:+--part "$part"} --of "6 $part" ${pareto:+--after "7 "} \
    --options networks pareto comparing \
    --needs "$exp_dir/averaged.pt" "$lang_dir/tokens.txt" "${dev_cuts[@]}" ${pareto:+"$pareto"} \
    --makes "$exp_dir/onnx/export.json" -- \
    run asrprune export --model "$exp_dir/averaged.pt" --lang-dir "$lang_dir" "${comparing[@]}" \
    --out-dir "$exp_dir/onnx" ${networks[0]+--networks "${networks[@]}"} ${pareto:+--search "$pareto"}
}

model_stages() { # the first training
  training_stages '' "$config" "$exp_dir" "$epochs" "$start_epoch" "$init_from" "$epoch" \
    "$first_avg"
}

# second_stages PART: the one that goes on from the averaged model. It goes on from its last checkpoint
# and its newest epochs are averaged: --start-epoch and --epoch are of the first training, which has
# epochs of its own.
second_stages() {
  local -a training_words=("${second_words[@]}") decoding_words=("${second_decoding[@]}")
  training_stages "$1" "$second_config" "$second_dir" "$pathways_epochs" 0 '' 0 "$second_avg"
}

# chosen_stages PART EXP_DIR: train a classifier of languages, and decode the test sets once more with
# the languages that the classifier chooses. Do nothing if an option decoding.language or
# decoding.language_classifier already says how languages are chosen.
chosen_stages() {
  local part=$1 exp_dir=$2 method folder results given chosen
  local -a chosen_words recogs
  [[ ! " ${language_words[*]}" =~ \ decoding\.language(_classifier)?= ]] || return 0
  stage train "$exp_dir" --part languages --aside --of "3 " --options language_steps dev_splits \
    --needs "${valid[@]}" --makes "$exp_dir/languages.pt" -- \
    run asrprune learn-languages --corpus "$corpus" --manifest-dir "$data_dir/valid" \
    --dev-sets "${dev[@]}" --steps "$language_steps" --output "$exp_dir/languages.pt"
  chosen_words=("${decoding_words[@]}" "${language_words[@]}" decoding.language=auto
    "decoding.language_classifier=$exp_dir/languages.pt")
  folder=$exp_dir/language_chosen
  for method in $decoding_method; do
    given=$method-$part chosen=$method-chosen-$part
    results=$folder/$method && scores+=("$results/score.txt")
    recogs=("${test[@]/%/-*.txt}") && recogs=("${recogs[@]/#/$results/recogs-}")
    stage decode "$results" --part "$chosen" --aside --of "6 $part" --after "5 languages" \
      --options test_splits streaming chosen_words \
      --needs "$exp_dir/averaged.pt" "$exp_dir/languages.pt" "$lang_dir/tokens.txt" "${valid[@]}" \
      --makes "${recogs[@]}" -- \
      run asrprune decode --exp-dir "$folder" --model "$exp_dir/averaged.pt" \
      --manifest-dir "$data_dir/valid" --lang-dir "$lang_dir" --test-sets "${test[@]}" \
      --decoding-method "$method" ${streaming:+--streaming "$streaming"} "${chosen_words[@]}"
    stage score "$results" --part "$chosen" --aside --of "8 $chosen" --after "8 $given" \
      --options test_splits --needs "${recogs[@]}" "${recogs[@]/#$folder/$exp_dir}" \
      --makes "$results/score.txt" -- run_to "$results/score.txt" \
      asrprune score --exp-dir "$folder" --decoding-method "$method" --test-sets "${test[@]}" \
      --against "$exp_dir"
  done
}

pathways_report() { # pathways_report EXP_DIR: what the languages' masks have and share, beside scores
  stage score "$1" --part report --aside --needs "$1/averaged.pt" --makes "$1/pathways.md" -- \
    run asrprune report pathways "$1" --manifest-dir "$data_dir/valid"
}
