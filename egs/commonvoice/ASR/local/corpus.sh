# shellcheck shell=bash disable=SC2154 # the options of run.sh
# Stages 0 and 1 of CommonVoice, a part a language, and which release is taken. Sourced by run.sh.

# Where the languages are, in "corpus_dir": the release that was asked for, or the newest of those
# that are named by number and date. Of others, such as delta releases, none is taken unasked.
find_release() {
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
  corpus_dir=$download_dir/$newest
}

# The splits of a language, in "own_splits", and their tables, in "tables": train-fr is train.tsv.
find_tables() { # find_tables LANGUAGE
  local split
  own_splits=() tables=()
  for split in "${splits[@]}"; do
    if [[ ${split#*-} == "$1" ]]; then
      own_splits+=("$split") tables+=("${split%%-*}")
    fi
  done
}

check_splits() { # every split is a table of a language, and every language has one
  local split lang
  local -a own_splits tables trained=("${train[@]#*-}") # their languages
  for split in "${splits[@]}"; do
    [[ $split =~ ^[a-z]+-(.+)$ && " ${languages[*]} " == *" ${BASH_REMATCH[1]} "* ]] ||
      fail "'$split' is no split of --langs '$langs'; one is called train-${languages[0]}"
  done
  for lang in "${languages[@]}"; do
    find_tables "$lang"
    [[ ${#tables[@]} -gt 0 ]] ||
      fail "--langs: $lang has no split in --train-splits, --dev-splits or --test-splits"
    [[ -z $pathways_config || " ${trained[*]} " == *" $lang "* ]] ||
      fail "--langs: $lang has no split in --train-splits, and pathways are of languages that are" \
        "trained: add one, leave $lang out, or train the dense model alone (--pathways-config '')"
  done
}

download() { # download LANGUAGE: it is downloaded by hand; a rehearsal is made
  if [[ $rehearsal == true ]]; then
    run asrprune rehearse --layout commonvoice --out-dir "$download_dir" --languages "$1" \
      --train-hours "$rehearsal_hours" --text "$rehearsal_text" \
      ${rehearsal_dev_hours:+--dev-hours "$rehearsal_dev_hours"} \
      ${rehearsal_test_hours:+--test-hours "$rehearsal_test_hours"} --jobs "$jobs"
  fi
  run python3 local/check_corpus.py "$corpus_dir" "$1" "${tables[@]}"
}

prepare() { # prepare LANGUAGE: manifests of its recordings and their transcripts
  run_into "$data_dir/manifests" python3 local/prepare.py --language "$1" \
    --tables "${tables[@]}" --bad-audio "$bad_audio" --allow-rejected "$allow_rejected" \
    --jobs "$jobs" "$corpus_dir"
}

download_stage() { # download_stage LANGUAGE
  local -a own_splits tables made
  find_tables "$1"
  made=("${tables[@]/%/.tsv}")
  stage download "$data_dir" --part "$1" --options rehearsal_hours rehearsal_text \
    rehearsal_dev_hours rehearsal_test_hours corpus_dir tables \
    --makes "${made[@]/#/$corpus_dir/$1/}" -- download "$1"
}

manifests_stage() { # manifests_stage LANGUAGE
  local -a own_splits tables made
  find_tables "$1"
  made=("${own_splits[@]/#/$data_dir/manifests/${corpus}_supervisions_}")
  stage manifests "$data_dir" --part "$1" --options corpus_dir tables bad_audio allow_rejected \
    --texts local/alphabets.py local/normalise.py --needs "$corpus_dir/$1" \
    --makes "${made[@]/%/.jsonl.gz}" -- prepare "$1"
}
