# shellcheck shell=bash disable=SC2154 # the options of run.sh
# Stages 0 to 2 of LibriSpeech, and of musan, whose noise may be mixed into it; the names of what the
# stages make of the splits. Sourced by run.sh.

read -ra train <<<"$train_splits"
read -ra dev <<<"$dev_splits"
read -ra test <<<"$test_splits"
splits=() evaluation=() corpora=() manifests=() cuts=()
valid=("$data_dir/valid/librispeech_cuts_train.jsonl.gz")
for split in "${dev[@]}" "${test[@]}"; do
  [[ " ${evaluation[*]} " != *" $split "* ]] || continue # a set may be for both
  evaluation+=("$split")
  valid+=("$data_dir/valid/librispeech_cuts_$split.jsonl.gz")
done
for split in "${train[@]}" "${evaluation[@]}"; do
  [[ " ${splits[*]} " != *" $split "* ]] || continue
  splits+=("$split")
  corpora+=("$download_dir/LibriSpeech/$split")
  manifests+=("$data_dir/manifests/librispeech_supervisions_$split.jsonl.gz")
  cuts+=("$data_dir/fbank/librispeech_cuts_$split.jsonl.gz")
done

download() { # what is there, such as a link to your copy, is left as it is
  if [[ $rehearsal == true ]]; then
    run asrprune rehearse --layout librispeech --out-dir "$download_dir" \
      --train-hours "$rehearsal_hours" \
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

features() { # features SPLIT; the speed of development and test sets is never changed
  local split=$1 speed_perturb=$speed_perturb
  [[ " $train_splits " == *" $split "* ]] || speed_perturb=false
  stage features "$data_dir" --part "$split" --options speed_perturb bad_audio \
    --needs "$data_dir/manifests/librispeech_supervisions_$split.jsonl.gz" \
    --makes "$data_dir/fbank/librispeech_cuts_$split.jsonl.gz" \
    "$data_dir/fbank/librispeech_feats_$split" -- \
    run asrprune fbank --corpus librispeech --splits "$split" \
    --manifest-dir "$data_dir/manifests" --out-dir "$data_dir/fbank" \
    --speed-perturb "$speed_perturb" --bad-audio "$bad_audio" --jobs "$jobs"
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
