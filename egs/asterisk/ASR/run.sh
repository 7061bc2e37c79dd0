#!/usr/bin/env bash
# Asterisk's telephone prompts in five languages, one model: ./run.sh [--option value ...]
# Stage 0 gets Debian's packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. "${ASRPRUNE_ROOT:-${PWD%/*/*/*}}/tools/path.sh" # finds asrprune
. options.sh

langs="en es fr it ru" # languages, as the packages name them
download_dir=download # where the packages are unpacked, by stage 0 or by you; / if they are
                      # installed; or a folder with a manifest.jsonl (README)
config=conf/conformer_tiny.yaml
speed_perturb=true
min_seconds=0.3       # (number) shorter utterances are not trained on
max_seconds=30        # (number) nor are longer ones
token_type=char
vocab_size=200        # symbols of the bpe tokenizer, which all languages share

. parse_options.sh "$@"
. transducer.sh
exp_dir=${exp_dir:-exp/${tag:-$(stem_of "$config")}}
read -ra languages <<<"$langs"
[[ ${#languages[@]} -gt 0 ]] || fail "--langs names no language, such as 'en fr'"
data=(asterisk "${languages[*]/#/train-}" "${languages[*]/#/dev-}" "${languages[*]/#/test-}")
splits=() manifests=()
unique splits "${data[@]:1}"
manifest_files manifests "${data[@]}"
begin_stages "$stage" "$stop_stage" "$dry_run"
check_model "${data[@]}" "${overrides[@]}"

stage download "$data_dir" --options download_dir langs --makes "$download_dir" -- \
  run python3 local/get_packages.py "$download_dir" "${languages[@]}"
stage manifests "$data_dir" --options download_dir langs bad_audio \
  --texts local/prepare.py local/prompts.py local/texts.py "$download_dir/manifest.jsonl" \
  --needs "$download_dir" --makes "${manifests[@]}" -- \
  run python3 local/prepare.py --corpus asterisk --out-dir "$data_dir/manifests" \
  --bad-audio "$bad_audio" --jobs "$jobs" "${splits[@]/%/=$download_dir}"
feature_stages "${data[@]}"
data_stages "${data[@]}"
model_stages "$export_networks" "${data[@]}" "${overrides[@]}"
finish
