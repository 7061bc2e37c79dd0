# shellcheck shell=bash disable=SC2154 # the options of run.sh
# Stages 0 and 1 of LibriSpeech, and 0 to 2 of musan, whose noise may be mixed into it. Sourced by
# run.sh.

download() { # what is there, such as a link to your copy, is left as it is
  if [[ $rehearsal == true ]]; then
    run asrprune rehearse --layout librispeech --out-dir "$download_dir" \
      --train-hours "$rehearsal_hours" --text "$rehearsal_text" \
      ${rehearsal_snr_db:+--snr-db "${rehearsal_snr_db% *}" "${rehearsal_snr_db#* }"} \
      ${rehearsal_utterances_per_speaker:+--utterances-per-speaker \
        "$rehearsal_utterances_per_speaker"} \
      ${rehearsal_dev_hours:+--dev-hours "$rehearsal_dev_hours"} \
      ${rehearsal_test_hours:+--test-hours "$rehearsal_test_hours"} --jobs "$jobs"
  else
    run python3 local/download.py "$download_dir" "${splits[@]}"
  fi
}

prepare() { # manifests of the recordings and their transcripts
  run python3 local/check_corpus.py "$download_dir/LibriSpeech" "${splits[@]}"
  run_into "$data_dir/manifests" lhotse prepare librispeech --num-jobs "$jobs" \
    "${splits[@]/#/--dataset-parts=}" "$download_dir/LibriSpeech"
}

noise_features() {
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
