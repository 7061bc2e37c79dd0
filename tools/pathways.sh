# shellcheck shell=bash disable=SC2154,SC2178 # the options of run.sh, and references to arrays
# A second training, which goes on from the averaged model of the first one with a mask for each
# language, as functions: sourcing this file runs nothing. A run.sh sources it in place of transducer.sh,
# has the options of options_pathways.sh as well, and calls
#
#   check_models DATA WORD...           in place of check_model
#   both_models LANGUAGES DATA WORD...  in place of model_stages; LANGUAGES: how many there are
#
# DATA and WORDs are as in transducer.sh. Where --pathways-config is empty, there is no second training.

. transducer.sh

pathways_folder() { printf '%s' "$exp_dir-$pathways_tag"; } # what stages 5 to 10 of it make

check_models() { # check_models CORPUS TRAIN DEV TEST WORD...: of both_models
  local -a words=("${@:5}")
  if [[ -n $pathways_config ]]; then
    check_pathways "$@"
    first_words words "${@:5}"
  fi
  check_model "${@:1:4}" "${words[@]}"
}

# both_models LANGUAGES CORPUS TRAIN DEV TEST WORD...: stages 5 to 10 of the first training, and of the
# second one
both_models() {
  local -a words
  if [[ -z $pathways_config ]]; then
    model_stages "$export_networks" "${@:2}"
    return
  fi
  first_words words "${@:6}"
  model_stages whole "${@:2:4}" "${words[@]}"
  pathways_stages "${@:2}"
  [[ $language_steps -eq 0 || $1 -lt 2 ]] || chosen_stages "${@:2}"
  pathways_report
}

# first_words RESULT WORD...: those of masks, and of how languages are chosen, are the second one's alone
first_words() { pick_words "$1" "training decoding" "${@:2}"; }

# second_words RESULT WORD...: of the second training, but for those of decoding and the word of the
# development sets
second_words() {
  local -n into=$1
  local -a of_training of_masks
  pick_words of_training training "${@:2}"
  pick_words of_masks masks "${@:2}"
  into=("${of_training[@]}" "training.init_from=$exp_dir/averaged.pt" "${of_masks[@]}")
}

second_config_exists() {
  [[ -f $pathways_config ]] ||
    fail "$pathways_config does not exist; there are: $(echo conf/*.yaml)"
}

check_pathways() { # check_pathways CORPUS TRAIN DEV TEST WORD...: of pathways_stages
  local averaged
  local -a words decoding training
  check_options "$3" "${@:5}"
  average_count averaged pathways_epochs "${@:5}"
  second_words words "${@:5}"
  pick_words decoding "decoding language" "${@:5}"
  training_words training "$pathways_config" "$(pathways_folder)" "$pathways_epochs" 0 '' \
    "$(dev_word "$3")" "${words[@]}" "${decoding[@]}"
  check second_config_exists
  check run asrprune train --dry-run true "${training[@]}"
}

# pathways_stages CORPUS TRAIN DEV TEST WORD...: stages 5 to 10. The training goes on from its last
# checkpoint and its newest epochs are averaged: --start-epoch and --epoch are of the first training,
# which has epochs of its own.
pathways_stages() {
  local averaged folder
  local -a data=("${@:1:4}") words decoding
  folder=$(pathways_folder)
  average_count averaged pathways_epochs "${@:5}"
  second_words words "${@:5}"
  pick_words decoding "decoding language" "${@:5}"
  train_stage pathways average "$pathways_config" "$folder" "$pathways_epochs" 0 '' \
    "${data[@]}" "${words[@]}"
  average_stage pathways "$folder" 0 "$averaged"
  decode_stages pathways "$folder" "${data[@]}" "${decoding[@]}"
  export_stage pathways "$folder" "$export_networks" "${data[@]}"
}

# chosen_stages CORPUS TRAIN DEV TEST WORD...: train a classifier of languages, and decode the test sets
# once more with the languages that the classifier chooses. Do nothing if an option
# decoding.language or decoding.language_classifier already says how languages are chosen.
chosen_stages() {
  local exp folder method name results lang_dir
  local -a words language dev test recogs given valid
  exp=$(pathways_folder)
  folder=$exp/language_chosen
  pick_words language language "${@:5}"
  [[ ! " ${language[*]}" =~ \ decoding\.language(_classifier)?= ]] || return 0
  lang_dir=$(lang_folder)
  read -ra dev <<<"$3"
  read -ra test <<<"$4"
  valid_files valid "$1" "$3" "$4"
  stage train "$exp" --part languages --aside --of validate \
    --options language_steps "dev_splits=$3" \
    --needs "${valid[@]}" --makes "$exp/languages.pt" -- \
    run asrprune learn-languages --corpus "$1" --manifest-dir "$data_dir/valid" \
    --dev-sets "${dev[@]}" --steps "$language_steps" --output "$exp/languages.pt"
  pick_words words "decoding language" "${@:5}"
  words+=(decoding.language=auto "decoding.language_classifier=$exp/languages.pt")
  for method in $decoding_method; do
    name=$method-chosen-pathways
    results=$folder/$method
    wrap recogs "$results/recogs-" '-*.txt' "${test[@]}"
    wrap given "$exp/$method/recogs-" '-*.txt' "${test[@]}"
    stage decode "$results" --part "$name" --aside --of average:pathways --after train:languages \
      --options "test_splits=$4" streaming "chosen_words=${words[*]}" \
      --needs "$exp/averaged.pt" "$exp/languages.pt" "$lang_dir/tokens.txt" "${valid[@]}" \
      --makes "${recogs[@]}" -- \
      run asrprune decode --exp-dir "$folder" --model "$exp/averaged.pt" \
      --manifest-dir "$data_dir/valid" --lang-dir "$lang_dir" --test-sets "${test[@]}" \
      --decoding-method "$method" ${streaming:+--streaming "$streaming"} "${words[@]}"
    stage score "$results" --part "$name" --aside --of "decode:$name" \
      --after "decode:$method-pathways" --options "test_splits=$4" \
      --needs "${recogs[@]}" "${given[@]}" \
      --makes "$results/score.txt" --shows "$results/score.txt" -- run_to "$results/score.txt" \
      asrprune score --exp-dir "$folder" --decoding-method "$method" --test-sets "${test[@]}" \
      --against "$exp"
  done
}

pathways_report() { # what the languages' masks have and share, beside scores
  local folder
  folder=$(pathways_folder)
  stage score "$folder" --part report --aside --needs "$folder/averaged.pt" \
    --makes "$folder/pathways.md" -- \
    run asrprune report pathways "$folder" --manifest-dir "$data_dir/valid"
}
