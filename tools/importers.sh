# shellcheck shell=bash disable=SC2154 # the options of run.sh
# Stages 0 and 1 of a recipe for any corpus, and its importers: tables, Kaldi's data directories,
# lhotse's cuts, what lhotse prepares, and local/prepare.py. These are functions: sourcing this file runs
# nothing. A run.sh sources it after transducer.sh, has the options of options_importers.sh, and calls
# find_sources before it uses --train-splits and the like, then download_stage and manifests_stage.
#
# Of "--tables train=... dev=... test=..." the names are the splits: what begins with train is
# trained on, with dev or val chosen by, all others are tested on, unless --train-splits and the like
# say otherwise.

# What find_sources finds. No other function sets it.
importer=''             # tables, kaldi, cuts or lhotse; empty: local/prepare.py
declare -A source_of=() # a split -> where it comes from, unless lhotse or local/prepare.py make it

# find_sources: which importer the options name, and which splits it has. They become the options
# train_splits, dev_splits and test_splits, where the command line does not give these.
find_sources() {
  local name words=''
  for name in tables kaldi cuts lhotse; do
    [[ -n ${!name} ]] || continue
    [[ -z $importer ]] || fail "--$importer and --$name: there is one way in"
    [[ $rehearsal != true ]] || fail "--$name: a rehearsal makes a corpus of its own"
    importer=$name words=${!name}
  done
  if [[ $rehearsal == true ]]; then
    importer=tables
    words="train=$download_dir/train.tsv dev=$download_dir/dev.tsv test=$download_dir/test.tsv"
  fi
  [[ $ignore_features == false || $importer == cuts ]] ||
    fail "--ignore-features: only --cuts may have features"
  [[ -z $audio_dir || ($importer != lhotse && $rehearsal == false) ]] ||
    fail "--audio-dir: ${importer/tables/a rehearsal} knows where its audio is"
  case $importer in
    '') ;;
    lhotse) refuse_spaces "$words" ;;
    *)
      refuse_spaces "$words"
      read_sources "$words"
      check_sources
      ;;
  esac
  [[ -n ${train_splits// /} && -n ${test_splits// /} ]] ||
    fail "there must be something to train on and something to test on:" \
      "${importer:+--$importer \"train=... test=...\", or }--train-splits and --test-splits"
}

refuse_spaces() { # refuse_spaces TEXT: words that spaces part, where some together are one path
  local first last joined
  local -a words
  read -ra words <<<"$1"
  for ((first = 0; first < ${#words[@]} - 1; first++)); do
    joined=${words[first]}
    for ((last = first + 1; last < ${#words[@]}; last++)); do
      joined+=" ${words[last]}"
      [[ ! -e ${joined#*=} ]] ||
        fail "--$importer: spaces part its words, and there is one in '${joined#*=}'. Make a link" \
          "without to that folder (ln -s '/my corpus' /my_corpus), and name the link"
    done
  done
}

read_sources() { # read_sources TEXT: the words SPLIT=PATH of an importer
  local word split
  local -a words train=() dev=() test=()
  read -ra words <<<"$1"
  for word in "${words[@]}"; do
    split=${word%%=*}
    [[ $word == *=?* && $split =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] ||
      fail "--$importer: '$word' is no SPLIT=PATH, such as train=/my/train (a path with a space needs" \
        "a link without one)"
    [[ -z ${source_of[$split]-} ]] || fail "--$importer: $split comes twice"
    source_of[$split]=${word#*=}
    case $split in
      train*) train+=("$split") ;;
      dev* | val*) dev+=("$split") ;;
      *) test+=("$split") ;;
    esac
  done
  default train_splits "${train[*]}"
  default dev_splits "${dev[*]}"
  default test_splits "${test[*]}"
}

check_sources() { # every split that is used has a source
  local split
  for split in $train_splits $dev_splits $test_splits; do
    [[ -n ${source_of[$split]-} ]] ||
      fail "--$importer names no $split$(nearest "$split" "${!source_of[@]}"); it names:" \
        "${!source_of[*]}"
  done
}

download_stage() { # where an importer says what there is, there is nothing to do
  [[ -z $importer || $rehearsal == true ]] || return 0
  stage download "$data_dir" --options rehearsal_hours rehearsal_text download_dir \
    --makes "$download_dir" -- download
}

download() {
  if [[ $rehearsal == true ]]; then
    run asrprune rehearse --layout table --out-dir "$download_dir" \
      --train-hours "$rehearsal_hours" --text "$rehearsal_text" --jobs "$jobs"
  elif [[ $dry_run != true && ! -d $download_dir ]]; then
    fail "$download_dir does not exist. Put the corpus there, or a link to it (ln -s /my/corpus" \
      "$download_dir), and have local/prepare.py read it; or give a way in: --tables, --kaldi," \
      "--cuts or --lhotse"
  fi
}

manifests_stage() { # manifests_stage CORPUS TRAIN DEV TEST; a table that was edited is read again
  local corpus=$1 split path
  local -a splits manifests texts=() sources=()
  unique splits "${@:2}"
  manifest_files manifests "$@"
  for split in "${splits[@]}"; do
    path=${source_of[$split]-}
    case $importer in
      '') sources=("$download_dir") texts=(local/prepare.py "$download_dir"/*.tsv) ;;
      kaldi) sources+=("$path") texts+=("$path"/{wav.scp,text,segments,utt2spk,utt2lang}) ;;
      lhotse) ;;
      *) sources+=("$path") texts+=("$path") ;;
    esac
  done
  stage manifests "$data_dir" --options download_dir tables kaldi cuts lhotse audio_dir \
    ignore_features bad_audio empty_text longest invisible_characters "splits=${splits[*]}" \
    --texts "${texts[@]}" \
    --needs "${sources[@]}" --makes "${manifests[@]}" -- prepare "$corpus" "${splits[@]}"
}

prepare() { # prepare CORPUS SPLIT...: manifests of the recordings and their transcripts
  local split
  local -a lhotse_words splits=("${@:2}")
  local -a words=(--corpus "$1" --out-dir "$data_dir/manifests" --bad-audio "$bad_audio"
    --empty-text "$empty_text" --longest "$longest"
    --invisible-characters "$invisible_characters" --jobs "$jobs")
  [[ -z $audio_dir ]] || words+=(--audio-dir "$audio_dir")
  case $importer in
    '') run python3 local/prepare.py "${words[@]}" "${splits[@]/%/=$download_dir}" ;;
    lhotse)
      read -ra lhotse_words <<<"$lhotse"
      if [[ ! -e $data_dir/lhotse.words || $(<"$data_dir/lhotse.words") != "$lhotse" ]]; then
        [[ $dry_run == true ]] || rm -rf "$data_dir/lhotse" "$data_dir/lhotse.words" # of another corpus
        run_into "$data_dir/lhotse" lhotse prepare "${lhotse_words[@]}"
        [[ $dry_run == true ]] || echo "$lhotse" >"$data_dir/lhotse.words"
      fi
      run asrprune manifests --from lhotse "${words[@]}" "${splits[@]/%/=$data_dir/lhotse}"
      ;;
    *)
      [[ $importer != cuts ]] || words+=(--ignore-features "$ignore_features")
      for split in "${splits[@]}"; do words+=("$split=${source_of[$split]}"); done
      run asrprune manifests --from "$importer" "${words[@]}"
      ;;
  esac
}
