# shellcheck shell=bash disable=SC2154 # the options of run.sh
# Stages 0 and 1 of a recipe for any corpus, and its importers: tables, Kaldi's data directories,
# lhotse's cuts, what lhotse prepares, and local/prepare.py. run.sh sources this file after stages.sh
# and before transducer.sh, has the options of egs/TEMPLATE/ASR/run.sh, and sets "corpus".
#
# Of "--tables train=... dev=... test=..." the names are the splits: what begins with train is
# trained on, with dev or val chosen by, all others are tested on, unless --train-splits and the like
# say otherwise.

way='' # how utterances come in; empty: by local/prepare.py
declare -A ways=([tables]=$tables [kaldi]=$kaldi [cuts]=$cuts [lhotse]=$lhotse)
declare -A source_of=() # a split -> where it comes from
for name in tables kaldi cuts lhotse; do
  [[ -n ${ways[$name]} ]] || continue
  [[ -z $way ]] || fail "--$way and --$name: there is one way in"
  [[ $rehearsal != true ]] || fail "--$name: a rehearsal makes a corpus of its own"
  way=$name
done
if [[ $rehearsal == true ]]; then
  way=tables
  for name in train dev test; do ways[tables]+="$name=$download_dir/$name.tsv "; done
fi

refuse_spaces() { # words that spaces part, where some of them together are one path
  local first last joined
  for ((first = 1; first < $#; first++)); do
    joined=${!first}
    for ((last = first + 1; last <= $#; last++)); do
      joined+=" ${!last}"
      [[ ! -e ${joined#*=} ]] ||
        fail "--$way: spaces part its words, and there is one in '${joined#*=}'. Make a link" \
          "without to that folder (ln -s '/my corpus' /my_corpus), and name the link"
    done
  done
}

read_sources() { # the words SPLIT=PATH of a way in, and the splits that they make
  local word split
  local -a words train=() dev=() test=()
  read -ra words <<<"${ways[$way]}"
  refuse_spaces "${words[@]}"
  for word in "${words[@]}"; do
    split=${word%%=*}
    [[ $word == *=?* && $split =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] ||
      fail "--$way: '$word' is no SPLIT=PATH, such as train=/my/train (a path with a space needs" \
        "a link without one)"
    [[ -z ${source_of[$split]-} ]] || fail "--$way: $split comes twice"
    source_of[$split]=${word#*=}
    case $split in
      train*) train+=("$split") ;;
      dev* | val*) dev+=("$split") ;;
      *) test+=("$split") ;;
    esac
  done
  default train_splits "${train[*]}" && default dev_splits "${dev[*]}"
  default test_splits "${test[*]}"
}

check_sources() { # every split that is used has a source
  local split
  for split in $train_splits $dev_splits $test_splits; do
    [[ -n ${source_of[$split]-} ]] ||
      fail "--$way names no $split$(nearest "$split" "${!source_of[@]}"); it names:" \
        "${!source_of[*]}"
  done
}

[[ $ignore_features == false || $way == cuts ]] ||
  fail "--ignore-features: only --cuts may have features"
[[ -z $audio_dir || ($way != lhotse && $rehearsal == false) ]] ||
  fail "--audio-dir: ${way/tables/a rehearsal} knows where its audio is"

if [[ -n $way && $way != lhotse ]]; then
  read_sources
  check_sources
elif [[ $way == lhotse ]]; then
  read -ra lhotse_words <<<"$lhotse"
  refuse_spaces "${lhotse_words[@]}"
fi
[[ -n ${train_splits// /} && -n ${test_splits// /} ]] ||
  fail "there must be something to train on and something to test on:" \
    "${way:+--$way \"train=... test=...\", or }--train-splits and --test-splits"

download_stage() { # where a way in says what there is, there is nothing to do
  [[ -z $way || $rehearsal == true ]] || return 0
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

manifests_stage() { # a table that was edited is read again
  local split path
  local -a texts=() sources=()
  for split in "${splits[@]}"; do
    path=${source_of[$split]-}
    case $way in
      '') sources=("$download_dir") texts=(local/prepare.py "$download_dir"/*.tsv) ;;
      kaldi) sources+=("$path") texts+=("$path"/{wav.scp,text,segments,utt2spk,utt2lang}) ;;
      lhotse) ;;
      *) sources+=("$path") texts+=("$path") ;;
    esac
  done
  stage manifests "$data_dir" --options download_dir tables kaldi cuts lhotse audio_dir \
    ignore_features bad_audio empty_text longest invisible_characters splits --texts "${texts[@]}" \
    --needs "${sources[@]}" --makes "${manifests[@]}" -- prepare
}

prepare() {
  local split
  local -a words=(--corpus "$corpus" --out-dir "$data_dir/manifests" --bad-audio "$bad_audio"
    --empty-text "$empty_text" --longest "$longest"
    --invisible-characters "$invisible_characters" --jobs "$jobs")
  [[ -z $audio_dir ]] || words+=(--audio-dir "$audio_dir")
  case $way in
    '') run python3 local/prepare.py "${words[@]}" "${splits[@]/%/=$download_dir}" ;;
    lhotse)
      if [[ ! -e $data_dir/lhotse.words || $(<"$data_dir/lhotse.words") != "$lhotse" ]]; then
        [[ $dry_run == true ]] || rm -rf "$data_dir/lhotse" "$data_dir/lhotse.words" # of another corpus
        run_into "$data_dir/lhotse" lhotse prepare "${lhotse_words[@]}"
        [[ $dry_run == true ]] || echo "$lhotse" >"$data_dir/lhotse.words"
      fi
      run asrprune manifests --from lhotse "${words[@]}" "${splits[@]/%/=$data_dir/lhotse}"
      ;;
    *)
      [[ $way != cuts ]] || words+=(--ignore-features "$ignore_features")
      for split in "${splits[@]}"; do words+=("$split=${source_of[$split]}"); done
      run asrprune manifests --from "$way" "${words[@]}"
      ;;
  esac
}
