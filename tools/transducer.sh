# shellcheck shell=bash disable=SC2154,SC2178 # the options of run.sh, and references to arrays
# Stages 2 to 10 of recipes for transducers, as functions: sourcing this file runs nothing. A run.sh
# calls in this order, its stages 0 and 1 between the second and the third:
#
#   begin_stages ...                        of stages.sh
#   check_model DATA WORD...
#   feature_stages DATA
#   data_stages DATA [BALANCE]
#   model_stages NETWORKS DATA WORD...
#   finish                                  of stages.sh
#
# DATA are four words: CORPUS TRAIN DEV TEST, the first word of the manifests' names, and the splits to
# train on, to choose by and to test on, in one word each. WORDs are key=value words. All else that the
# functions read are the options of options.sh.
#
# A function whose comment begins with RESULT sets the variable of its caller that its first argument
# names, and no other.

. stages.sh

# --- names ----------------------------------------------------------------------------------------

stem_of() { # stem_of CONFIG: its name without folder and suffix
  local name=${1##*/}
  printf '%s' "${name%.*}"
}

# rehearsal_folders STEM: what is made is below rehearsal/, in the options download_dir, data_dir and
# exp_dir, where the command line does not say otherwise. STEM: the experiment's name without --tag.
rehearsal_folders() {
  default download_dir rehearsal/download
  default data_dir rehearsal/data
  default exp_dir "rehearsal/exp/${tag:-$1}"
}

unique() { # unique RESULT TEXT...: the words of these texts, each once
  local -n into=$1
  local word
  local -a parted
  read -ra parted <<<"${*:2}"
  into=()
  for word in "${parted[@]}"; do
    [[ " ${into[*]} " == *" $word "* ]] || into+=("$word")
  done
}

wrap() { # wrap RESULT BEFORE AFTER WORD...: each word between these two
  local -n into=$1
  local word
  into=()
  for word in "${@:4}"; do into+=("$2$word$3"); done
}

# manifest_files RESULT CORPUS SPLITS...: of the supervisions, which stage 1 makes
manifest_files() {
  local -a every_split
  unique every_split "${@:3}"
  wrap "$1" "$data_dir/manifests/$2_supervisions_" .jsonl.gz "${every_split[@]}"
}

# valid_files RESULT CORPUS DEV TEST: of the cuts that stage 3 makes, those to train on first
valid_files() {
  local -a judged
  unique judged "$3" "$4"
  wrap "$1" "$data_dir/valid/$2_cuts_" .jsonl.gz train "${judged[@]}"
}

lang_folder() { # what stage 4 makes
  local name=lang_$token_type
  if [[ $token_type == bpe ]]; then
    name+=_$vocab_size
    [[ -z $bpe_model ]] || name=lang_bpe_given
  fi
  [[ -z $extend_lang ]] || name=lang_extended
  printf '%s' "$data_dir/$name"
}

# --- words of commands ----------------------------------------------------------------------------

kind_of() { # kind_of WORD: what a key=value word is about
  case $1 in
    decoding.language*) echo language ;; # how languages are chosen
    decoding.*) echo decoding ;;
    weight_pruning.*) echo masks ;;
    *) echo training ;;
  esac
}

# pick_words RESULT "KIND..." WORD...: the words of these kinds, one kind after the other
pick_words() {
  local -n into=$1
  local kind word
  into=()
  for kind in $2; do
    for word in "${@:3}"; do
      [[ $(kind_of "$word") != "$kind" ]] || into+=("$word")
    done
  done
}

dev_word() { # dev_word DEV: the key=value word of the development sets
  local -a sets
  read -ra sets <<<"$1"
  local IFS=,
  printf '%s' "data.dev=[${sets[*]}]"
}

# training_words RESULT CONFIG FOLDER EPOCHS START_EPOCH INIT_FROM WORD...: of "asrprune train"
training_words() {
  local -n into=$1
  into=(--config "$2" --exp-dir "$3" --manifest-dir "$data_dir/valid"
    --lang-dir "$(lang_folder)" --world-size "$world_size" --nodes "$nodes"
    ${max_duration:+--max-duration "$max_duration"} ${4:+--epochs "$4"} --start-epoch "$5"
    ${6:+--init-from "$6"} "${@:7}")
}

search_words() { # search_words RESULT FOLDER DEV: of "asrprune search"
  local -n into=$1
  local -a budgets judged
  read -ra budgets <<<"$search_budgets"
  read -ra judged <<<"$3"
  into=(--exp-dir "$2" --manifest-dir "$data_dir/valid" --lang-dir "$(lang_folder)"
    --dev-set "${judged[0]}" --budgets "${budgets[@]}" --rerank "$search_rerank")
}

# average_count RESULT OPTION WORD...: how many epochs are averaged of a training whose OPTION says how
# many it has. As many as --avg says; its default is lowered where they are fewer.
average_count() {
  local -n into=$1
  local value=${!2} name=--${2//_/-} word
  if [[ -z $value ]]; then
    name=training.epochs
    for word in "${@:3}"; do
      [[ $word != training.epochs=* ]] || value=${word#*=}
    done
  fi
  into=$avg
  if [[ $value =~ ^[0-9]+$ && $value -lt $avg ]]; then
    [[ -z ${option_given[avg]-} ]] ||
      fail "--avg $avg: more epochs than $name=$value trains; lower --avg or raise $name"
    into=$value
  fi
}

# --- checks ---------------------------------------------------------------------------------------

# check_options DEV WORD...: what no command would find in time. Sets the option jobs, where it is 0.
check_options() {
  local averaged
  [[ -f $config ]] || fail "--config: $config does not exist; there are: $(echo conf/*.yaml)"
  # nproc answers with OMP_NUM_THREADS where that is set
  [[ $jobs -gt 0 ]] || jobs=$(env -u OMP_NUM_THREADS nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
  if [[ -n $search_budgets ]]; then
    [[ -n ${1// /} ]] || fail "--search-budgets: --dev-splits must name a set to search on"
  elif [[ $stage =~ ^(7|search)$ || $stop_stage =~ ^(7|search)$ ]]; then
    fail "there is no stage 7 (search) without --search-budgets, such as '0.5 0.8' or '5MB 10MB'"
  fi
  [[ $export_int8_loss =~ ^(0|0?\.[0-9]+|1(\.0*)?)?$ ]] ||
    fail "--export-int8-loss $export_int8_loss: must be a share, 0 to 1, such as 0.01"
  average_count averaged epochs "${@:2}"
  # a training that has begun needs it no more
  [[ -z $init_from || -f $init_from ]] || compgen -G "$exp_dir/*.pt" >/dev/null ||
    fail "--init-from: $init_from does not exist"
}

check_model() { # check_model CORPUS TRAIN DEV TEST WORD...: of model_stages
  local -a words training decoding searching
  check_options "$3" "${@:5}"
  pick_words words "training masks" "${@:5}"
  words=("$(dev_word "$3")" "${words[@]}")
  pick_words decoding "decoding language" "${@:5}"
  training_words training "$config" "$exp_dir" "$epochs" "$start_epoch" "$init_from" \
    "${words[@]}" "${decoding[@]}"
  check run asrprune train --dry-run true "${training[@]}"
  [[ -n $search_budgets ]] || return 0
  search_words searching "$exp_dir" "$3"
  check run asrprune search --dry-run true --config "$config" "${searching[@]}" "${words[@]}"
}

# --- stages 2 to 4 --------------------------------------------------------------------------------

feature_stages() { # feature_stages CORPUS TRAIN DEV TEST
  local split
  local -a splits
  unique splits "${@:2}"
  for split in "${splits[@]}"; do
    if [[ " $2 " == *" $split "* ]]; then
      feature_stage "$1" "$split" "$speed_perturb"
    else # the speed of development and test sets is never changed
      feature_stage "$1" "$split" false
    fi
  done
}

feature_stage() { # feature_stage CORPUS SPLIT SPEED_PERTURB
  stage features "$data_dir" --part "$2" --options "speed_perturb=$3" bad_audio \
    --needs "$data_dir/manifests/$1_supervisions_$2.jsonl.gz" \
    --makes "$data_dir/fbank/$1_cuts_$2.jsonl.gz" "$data_dir/fbank/$1_feats_$2" -- \
    run asrprune fbank --corpus "$1" --splits "$2" \
    --manifest-dir "$data_dir/manifests" --out-dir "$data_dir/fbank" \
    --speed-perturb "$3" --bad-audio "$bad_audio" --jobs "$jobs"
}

# data_stages CORPUS TRAIN DEV TEST [BALANCE]: stages 3 and 4. BALANCE is how the tokenizer weighs
# languages.
data_stages() {
  local corpus=$1 balance=${5-} folder
  local -a trained sets splits cuts valid dropped
  folder=$(lang_folder)
  read -ra trained <<<"$2"
  unique sets "$3" "$4"
  unique splits "${@:2:3}"
  wrap cuts "$data_dir/fbank/${corpus}_cuts_" .jsonl.gz "${splits[@]}"
  valid_files valid "$corpus" "$3" "$4"
  read -ra dropped <<<"$drop_words"
  stage validate "$data_dir" \
    --options "train_splits=$2" "dev_splits=$3" "test_splits=$4" allow_rejected \
    min_seconds max_seconds drop_words --needs "${cuts[@]}" \
    --makes "${valid[@]}" "$data_dir/valid/${corpus}_statistics.json" -- \
    run asrprune validate --corpus "$corpus" --manifest-dir "$data_dir/fbank" \
    --out-dir "$data_dir/valid" --train "${trained[@]}" --eval "${sets[@]}" \
    --allow-rejected "$allow_rejected" ${min_seconds:+--min-seconds "$min_seconds"} \
    ${max_seconds:+--max-seconds "$max_seconds"} \
    ${dropped[0]+--drop-words "${dropped[@]}"} --jobs "$jobs"

  stage tokenizer "$folder" --options token_type vocab_size bpe_model extend_lang \
    "bpe_balance=$balance" max_unknown \
    --needs "${valid[@]}" --makes "$folder/tokens.txt" -- \
    run asrprune tokenizer --manifest "${valid[0]}" --type "$token_type" \
    --vocab-size "$vocab_size" ${bpe_model:+--bpe-model "$bpe_model"} \
    ${extend_lang:+--extend "$extend_lang"} \
    ${balance:+--balance "$balance"} --max-unknown "$max_unknown" \
    --allow-rejected "$allow_rejected" --others "${valid[@]:1}" --out-dir "$folder"
}

# --- stages 5 to 10 -------------------------------------------------------------------------------
# PART is the part that the stages of a second training have; the first one has none.

# model_stages NETWORKS CORPUS TRAIN DEV TEST WORD...: the first training, whose stage 10 exports these
# networks; none: the whole
model_stages() {
  local networks=$1 averaged
  local -a data=("${@:2:4}") words decoding
  average_count averaged epochs "${@:6}"
  pick_words words "training masks" "${@:6}"
  pick_words decoding "decoding language" "${@:6}"
  train_stage '' features:musan "$config" "$exp_dir" "$epochs" "$start_epoch" "$init_from" \
    "${data[@]}" "${words[@]}"
  average_stage '' "$exp_dir" "$epoch" "$averaged"
  [[ -z $search_budgets ]] || search_stage "$exp_dir" "${data[@]}"
  decode_stages '' "$exp_dir" "${data[@]}" "${decoding[@]}"
  export_stage '' "$exp_dir" "$networks" "${data[@]}"
}

# train_stage PART AFTER CONFIG FOLDER EPOCHS START_EPOCH INIT_FROM CORPUS TRAIN DEV TEST WORD...: AFTER
# is a stage that not every recipe has: features of noise, or the first training
train_stage() {
  local part=$1 config=$3 folder=$4 epochs=$5
  local -a words training valid
  words=("$(dev_word "${10}")" "${@:12}")
  training_words training "${@:3:5}" "${words[@]}"
  valid_files valid "$8" "${10}" "${11}"
  stage train "$folder" ${part:+--part "$part"} --after "$2" \
    --options "config=$config" max_duration "epochs=$epochs" "start_epoch=$6" "init_from=$7" \
    "training_words=${words[*]}" \
    --texts "$config" --needs "${valid[@]}" "$(lang_folder)/tokens.txt" \
    --makes "$folder/epoch-${epochs:-*}.pt" -- \
    run asrprune train "${training[@]}"
}

average_stage() { # average_stage PART FOLDER EPOCH AVG
  stage average "$2" ${1:+--part "$1"} --options "epoch=$3" "avg=$4" use_averaged_model \
    --needs "$2/epoch-*.pt" --makes "$2/averaged.pt" -- \
    run asrprune average --exp-dir "$2" --epoch "$3" --avg "$4" \
    --use-averaged-model "$use_averaged_model"
}

# search_stage FOLDER CORPUS TRAIN DEV TEST: what decodes the whole model does not depend on it
search_stage() {
  local -a searching valid
  search_words searching "$1" "$4"
  valid_files valid "$2" "$4" "$5"
  stage search "$1" --aside --options search_budgets search_seconds search_generations \
    search_rerank search_sample_wer "dev_splits=$4" \
    --needs "$1/averaged.pt" "$(lang_folder)/tokens.txt" "${valid[@]}" \
    --makes "$1/pareto.json" -- \
    run asrprune search "${searching[@]}" ${search_seconds:+--max-seconds "$search_seconds"} \
    --generations "$search_generations" --sample-wer "$search_sample_wer" --wer true
}

# decode_stages PART FOLDER CORPUS TRAIN DEV TEST WORD...: stages 8 and 9
decode_stages() {
  local part=$1 folder=$2 method name results lang_dir
  local -a test recogs valid
  lang_dir=$(lang_folder)
  read -ra test <<<"$6"
  valid_files valid "$3" "$5" "$6"
  for method in $decoding_method; do
    name=$method${part:+-$part} # ends in the part of the stages before
    results=$folder/$method
    wrap recogs "$results/recogs-" '-*.txt' "${test[@]}"
    stage decode "$results" --part "$name" \
      --options "test_splits=$6" streaming "decoding_words=${*:7}" \
      --needs "$folder/averaged.pt" "$lang_dir/tokens.txt" "${valid[@]}" \
      --makes "${recogs[@]}" -- \
      run asrprune decode --exp-dir "$folder" --manifest-dir "$data_dir/valid" \
      --lang-dir "$lang_dir" --test-sets "${test[@]}" --decoding-method "$method" \
      ${streaming:+--streaming "$streaming"} "${@:7}"
    stage score "$results" --part "$name" --options "test_splits=$6" --needs "${recogs[@]}" \
      --makes "$results/score.txt" --shows "$results/score.txt" -- run_to "$results/score.txt" \
      asrprune score --exp-dir "$folder" --decoding-method "$method" --test-sets "${test[@]}"
  done
}

export_stage() { # export_stage PART FOLDER NETWORKS CORPUS TRAIN DEV TEST
  local part=$1 folder=$2 pareto='' lang_dir
  local -a networks dev cuts=() comparing=() # of int8 with float32
  lang_dir=$(lang_folder)
  read -ra networks <<<"$3"
  read -ra dev <<<"$6"
  # sizes are those that the search has found, where there is one
  [[ -z $search_budgets || -n $part || " ${networks[*]}" != *' '[0-9]* ]] ||
    pareto=$folder/pareto.json
  if [[ ! $export_int8_loss =~ ^1 && ${#dev[@]} -gt 0 ]]; then
    wrap cuts "$data_dir/valid/$4_cuts_" .jsonl.gz "${dev[@]}"
    comparing=(--manifest-dir "$data_dir/valid" --dev-sets "${dev[@]}"
      ${export_int8_loss:+--int8-loss "$export_int8_loss"})
  fi
  stage export "$folder" ${part:+--part "$part"} --of "average${part:+:$part}" \
    ${pareto:+--after search} \
    --options "networks=${networks[*]}" "pareto=$pareto" "comparing=${comparing[*]}" \
    --needs "$folder/averaged.pt" "$lang_dir/tokens.txt" "${cuts[@]}" ${pareto:+"$pareto"} \
    --makes "$folder/onnx/export.json" -- \
    run asrprune export --model "$folder/averaged.pt" --lang-dir "$lang_dir" "${comparing[@]}" \
    --out-dir "$folder/onnx" ${networks[0]+--networks "${networks[@]}"} ${pareto:+--search "$pareto"}
}
