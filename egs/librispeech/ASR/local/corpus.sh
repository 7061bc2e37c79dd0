# shellcheck shell=bash disable=SC2154 # the options of run.sh
# What run.sh of LibriSpeech calls, beside transducer.sh: the defaults of --rehearsal and --mini, stages 0
# and 1, and stages 0 to 2 of musan, whose noise may be mixed into it. Sourcing this file runs nothing.

other_defaults() { # what --rehearsal and --mini change, where the command line does not say otherwise
  local stem
  if [[ $rehearsal == true ]]; then
    default train_splits train-clean-100
    default dev_splits dev-clean
    default test_splits test-clean
    default config conf/rehearsal.yaml
    default vocab_size 100
    default avg 2
  elif [[ $mini == true ]]; then
    default train_splits train-clean-5
    default dev_splits dev-clean-2
    default test_splits dev-clean-2
    default data_dir data/mini
  fi
  stem=$(stem_of "$config")
  [[ $mini != true ]] || stem=mini-$stem
  [[ $rehearsal != true || $stem == rehearsal* ]] || stem=rehearsal-$stem
  [[ $rehearsal != true ]] || rehearsal_folders "$stem"
  exp_dir=${exp_dir:-exp/${tag:-$stem}}
}

download_stage() { # download_stage CORPUS TRAIN DEV TEST
  local -a splits folders
  unique splits "${@:2}"
  wrap folders "$download_dir/LibriSpeech/" '' "${splits[@]}"
  stage download "$data_dir" --options rehearsal_hours rehearsal_text rehearsal_snr_db \
    rehearsal_utterances_per_speaker rehearsal_dev_hours rehearsal_test_hours download_dir \
    --makes "${folders[@]}" -- download "${splits[@]}"
}

manifests_stage() { # manifests_stage CORPUS TRAIN DEV TEST
  local -a splits manifests
  unique splits "${@:2}"
  manifest_files manifests "$@"
  stage manifests "$data_dir" --options download_dir --makes "${manifests[@]}" -- \
    prepare "${splits[@]}"
}

download() { # download SPLIT...; splits that are in the folder, or in a linked copy, do not change
  if [[ $rehearsal == true ]]; then
    run asrprune rehearse --layout librispeech --out-dir "$download_dir" \
      --train-hours "$rehearsal_hours" --text "$rehearsal_text" \
      ${rehearsal_snr_db:+--snr-db "${rehearsal_snr_db% *}" "${rehearsal_snr_db#* }"} \
      ${rehearsal_utterances_per_speaker:+--utterances-per-speaker \
        "$rehearsal_utterances_per_speaker"} \
      ${rehearsal_dev_hours:+--dev-hours "$rehearsal_dev_hours"} \
      ${rehearsal_test_hours:+--test-hours "$rehearsal_test_hours"} --jobs "$jobs"
  else
    run python3 local/download.py "$download_dir" "$@"
  fi
}

prepare() { # prepare SPLIT...: manifests of the recordings and their transcripts
  run python3 local/check_corpus.py "$download_dir/LibriSpeech" "$@"
  run_into "$data_dir/manifests" lhotse prepare librispeech --num-jobs "$jobs" \
    "${@/#/--dataset-parts=}" "$download_dir/LibriSpeech"
}

noise_stage() { # stage 2 of musan
  stage features "$data_dir" --part musan --options download_dir bad_audio \
    --makes "$data_dir/fbank/musan_cuts.jsonl.gz" "$data_dir/fbank/musan_feats_noise" -- \
    prepare_noise
}

prepare_noise() {
  run python3 local/download.py "$download_dir" musan
  run_into "$data_dir/manifests" lhotse prepare musan "$download_dir/musan"
  run python3 local/supervise_noise.py "$data_dir/manifests"
  run asrprune fbank --corpus musan --splits music speech noise --manifest-dir "$data_dir/manifests" \
    --out-dir "$data_dir/fbank" --bad-audio "$bad_audio" --jobs "$jobs"
  run_to "$data_dir/fbank/musan_cuts.jsonl.gz" cat \
    "$data_dir/fbank/musan_cuts_"{music,speech,noise}.jsonl.gz
}
