# shellcheck shell=bash disable=SC2154 # the options of run.sh
# What run.sh of CommonVoice calls, beside pathways.sh: defaults, which release is taken, and stages 0
# and 1, a part a language. Sourcing this file runs nothing.

# other_defaults: sets the options that depend on others: on --rehearsal, --langs and --config
other_defaults() {
  local stem
  local -a languages
  if [[ $rehearsal == true ]]; then
    default release cv-corpus-0.0-rehearsal
    default config conf/rehearsal.yaml
    default pathways_config conf/rehearsal_pathways.yaml
    default vocab_size 150
    default avg 2
    default language_steps 300
    if [[ ! -e /dev/nvidia0 && -z ${option_given[world_size]-} ]]; then
      world_size=2 # so small a model uses one core a process; its batches stay 14 s in all
      default max_duration 7
    fi
  fi
  stem=$(stem_of "$config")
  [[ $rehearsal != true || $stem == rehearsal* ]] || stem=rehearsal-$stem
  [[ $rehearsal != true ]] || rehearsal_folders "$stem"
  exp_dir=${exp_dir:-exp/${tag:-$stem}}
  read -ra languages <<<"$langs"
  [[ ${#languages[@]} -gt 0 ]] || fail "--langs names no language, such as 'en fr'"
  train_splits=${train_splits:-${languages[*]/#/train-}}
  dev_splits=${dev_splits:-${languages[*]/#/dev-}}
  test_splits=${test_splits:-${languages[*]/#/test-}}
}

# find_corpus RESULT CORPUS TRAIN DEV TEST: the folder of the release that is taken. The splits must be
# tables of its languages.
find_corpus() {
  find_release "$1"
  check_splits "${@:2}"
}

# find_release RESULT: where the languages are: the release that was asked for, or the newest of those
# that are named by number and date. Of others, such as delta releases, none is taken unasked.
find_release() {
  local -n into=$1
  local path name newest='' numbered=() others=()
  for path in "$download_dir"/cv-corpus-*/; do
    name=${path%/} && name=${name##*/}
    if [[ $name =~ ^cv-corpus-[0-9]+(\.[0-9]+)?-[0-9]{4}-[0-9]{2}-[0-9]{2}$ ]]; then
      numbered+=("$name")
    elif [[ -d $path ]]; then
      others+=("$name")
    fi
  done
  if [[ -n $release ]]; then
    newest=$release
  elif [[ ${#numbered[@]} -gt 0 ]]; then
    newest=$(printf '%s\n' "${numbered[@]}" | sort -V | tail -n 1)
    for name in "${numbered[@]}"; do # 21.0 of two days
      [[ $name == "$newest" || ${name%-*-*-*} != "${newest%-*-*-*}" ]] ||
        fail "$download_dir holds $name and $newest: choose one with --release"
    done
  elif [[ ${#others[@]} -gt 1 ]]; then
    fail "$download_dir holds ${others[*]}, and none is named cv-corpus-<version>-<date>: choose" \
      "one with --release"
  else
    newest=${others[0]-cv-corpus-<version>}
  fi
  into=$download_dir/$newest
}

# own_splits RESULT LANGUAGE CORPUS TRAIN DEV TEST: the splits of a language; train-fr is one of fr, and
# is its table train.tsv
own_splits() {
  local -n into=$1
  local split
  local -a every_split
  unique every_split "${@:4}"
  into=()
  for split in "${every_split[@]}"; do
    [[ ${split#*-} != "$2" ]] || into+=("$split")
  done
}

# check_splits CORPUS TRAIN DEV TEST: every split is a table of a language, and every language has one
check_splits() {
  local split lang
  local -a splits own languages trained
  read -ra languages <<<"$langs"
  read -ra trained <<<"$2"
  trained=("${trained[@]#*-}") # their languages
  unique splits "${@:2}"
  for split in "${splits[@]}"; do
    [[ $split =~ ^[a-z]+-(.+)$ && " ${languages[*]} " == *" ${BASH_REMATCH[1]} "* ]] ||
      fail "'$split' is no split of --langs '$langs'; one is called train-${languages[0]}"
  done
  for lang in "${languages[@]}"; do
    own_splits own "$lang" "$@"
    [[ ${#own[@]} -gt 0 ]] ||
      fail "--langs: $lang has no split in --train-splits, --dev-splits or --test-splits"
    [[ -z $pathways_config || " ${trained[*]} " == *" $lang "* ]] ||
      fail "--langs: $lang has no split in --train-splits, and pathways are of languages that are" \
        "trained: add one, leave $lang out, or train the dense model alone (--pathways-config '')"
  done
}

# download_stage LANGUAGE CORPUS_DIR CORPUS TRAIN DEV TEST
download_stage() {
  local -a own tables made
  own_splits own "$1" "${@:3}"
  tables=("${own[@]%%-*}")
  wrap made "$2/$1/" .tsv "${tables[@]}"
  stage download "$data_dir" --part "$1" --options rehearsal_hours rehearsal_text \
    rehearsal_dev_hours rehearsal_test_hours "corpus_dir=$2" "tables=${tables[*]}" \
    --makes "${made[@]}" -- download "$1" "$2" "${tables[@]}"
}

# download LANGUAGE CORPUS_DIR TABLE...: it is downloaded by hand; a rehearsal is made
download() {
  if [[ $rehearsal == true ]]; then
    run asrprune rehearse --layout commonvoice --out-dir "$download_dir" --languages "$1" \
      --train-hours "$rehearsal_hours" --text "$rehearsal_text" \
      ${rehearsal_dev_hours:+--dev-hours "$rehearsal_dev_hours"} \
      ${rehearsal_test_hours:+--test-hours "$rehearsal_test_hours"} --jobs "$jobs"
  fi
  run python3 local/check_corpus.py "$2" "$1" "${@:3}"
}

# manifests_stage LANGUAGE CORPUS_DIR CORPUS TRAIN DEV TEST
manifests_stage() {
  local -a own tables made
  own_splits own "$1" "${@:3}"
  tables=("${own[@]%%-*}")
  manifest_files made "$3" "${own[@]}"
  stage manifests "$data_dir" --part "$1" \
    --options "corpus_dir=$2" "tables=${tables[*]}" bad_audio allow_rejected \
    --texts local/alphabets.py local/normalise.py --needs "$2/$1" \
    --makes "${made[@]}" -- prepare "$1" "$2" "${tables[@]}"
}

# prepare LANGUAGE CORPUS_DIR TABLE...: manifests of its recordings and their transcripts
prepare() {
  run_into "$data_dir/manifests" python3 local/prepare.py --language "$1" \
    --tables "${@:3}" --bad-audio "$bad_audio" --allow-rejected "$allow_rejected" \
    --jobs "$jobs" "$2"
}
