#!/usr/bin/env bash
# Prove exact resume on this machine: rehearse a recipe once undisturbed and once killed with SIGKILL
# at random moments of the stages from download to score, and compare the averaged models (to the bit)
# and the scores. Search and export, which are only made when asked for, are not among them.
#
#   tools/kill_often.sh [--kills 20] [--seed 1] [--recipe egs/librispeech/ASR] [options of run.sh]
#   tools/kill_often.sh --rehearsal-hours 0.1 training.epochs=3 training.checkpoint_interval=5
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
kills=20 seed=1 recipe=egs/librispeech/ASR
while [[ ${1-} == --kills || ${1-} == --seed || ${1-} == --recipe ]]; do
  printf -v "${1#--}" %s "$2"
  shift 2
done
RANDOM=$seed
work=$(mktemp -d "${TMPDIR:-/tmp}/kill-often.XXXXXX")
stages=(download manifests features validate tokenizer train average decode score)

# rehearse NAME [option ...]: the recipe in a folder of its own, in a process group of its own
rehearse() {
  local folder=$work/$1
  shift
  mkdir -p "$folder"
  exec setsid "$root/$recipe/run.sh" --rehearsal true --download-dir "$folder/download" \
    --data-dir "$folder/data" --exp-dir "$folder/exp" "$@" >>"$folder/log" 2>&1
}

milliseconds() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }

echo "$work/whole: undisturbed"
declare -A took
total=0
for stage in "${stages[@]}"; do
  start=$(milliseconds)
  (rehearse whole --stop-stage "$stage" "$@") ||
    { tail -n 5 "$work/whole/log" && exit 1; } >&2
  took[$stage]=$(($(milliseconds) - start))
  total=$((total + took[$stage]))
  echo "  $stage: ${took[$stage]} ms"
done

echo "$work/killed: killed $kills times"
# once in each stage, the longest ones first, and then as the stages share the time
mapfile -t longest < <(for index in "${!stages[@]}"; do
  echo "${took[${stages[index]}]} $index"
done | sort -rn | cut -d ' ' -f 2)
declare -A times=()
for ((n = 0; n < kills; n++)); do
  if [[ $n -lt ${#stages[@]} ]]; then
    times[${longest[n]}]=1
    continue
  fi
  moment=$((total * (2 * (n - ${#stages[@]}) + 1) / (2 * (kills - ${#stages[@]})))) index=0
  while [[ $moment -ge ${took[${stages[index]}]} ]]; do
    moment=$((moment - took[${stages[index]}])) index=$((index + 1))
  done
  times[$index]=$((times[$index] + 1))
done
landed=0 due=0
for index in "${!stages[@]}"; do
  stage=${stages[index]}
  due=$((due + ${times[$index]:-0}))
  # moments that together take about as long as the stage did above, and none near its end
  span=$((2 * took[$stage] / (due + 1) < 3 * took[$stage] / 4 ?
    2 * took[$stage] / (due + 1) : 3 * took[$stage] / 4))
  while [[ $due -gt 0 ]]; do
    after=$((RANDOM * span / 32768))
    (rehearse killed --stop-stage "$stage" "$@") &
    child=$!
    sleep "$((after / 1000)).$(printf %03d $((after % 1000)))"
    if kill -KILL -- "-$child" 2>/dev/null; then
      echo "  killed after $after ms of $stage"
      landed=$((landed + 1)) due=$((due - 1))
      wait "$child" 2>/dev/null || true
    else
      wait "$child" || { tail -n 5 "$work/killed/log" && exit 1; } >&2
      echo "  $stage had ended before $after ms: $due to come in later stages"
      break
    fi
  done
done
echo "$landed of $kills kills hit"
(rehearse killed "$@") || { tail -n 5 "$work/killed/log" && exit 1; } >&2

"$root/.venv/bin/python" "$root/tools/same_model.py" "$work"/{whole,killed}/exp/averaged.pt
whole=$(tail -n 1 "$work/whole/log") killed=$(tail -n 1 "$work/killed/log")
if [[ $whole != "$killed" ]]; then
  printf 'the scores differ:\n%s\n%s\n' "$whole" "$killed" >&2
  exit 1
fi
echo "the scores are equal: $whole"
rm -r "$work"
