#!/usr/bin/env bash
# Prove exact resume of several ranks: rehearse a recipe once undisturbed; once more, and kill one rank
# with SIGKILL in the middle of an epoch, start again as a Slurm job, which is told to make room and is
# requeued (scontrol is a stand-in), and let that go on to the end. Compares the averaged models (to the
# bit) and the scores.
#
#   tools/lose_a_rank.sh [--recipe egs/librispeech/ASR] [options of run.sh, such as training.epochs=3]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
recipe=egs/librispeech/ASR
if [[ ${1-} == --recipe ]]; then
  recipe=$2
  shift 2
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/lose-a-rank.XXXXXX")
words=(--rehearsal true --world-size 2 --download-dir "$work/download" --data-dir "$work/data" "$@")

# wait_for EPOCHS: until the disturbed training has so many behind it
wait_for() {
  until [[ $(tail -n 1 "$work/killed/log/metrics.jsonl" 2>/dev/null) =~ \"epoch\":\ ([0-9.]+) ]] &&
    awk -v at="${BASH_REMATCH[1]}" -v least="$1" 'BEGIN { exit !(at >= least) }'; do
    kill -0 "$child" 2>/dev/null || fail "the training ended before epoch $1"
    sleep 0.5
  done
}

fail() {
  echo "${0##*/}: $1; its last words:" >&2
  tail -n 5 "$work"/*.log >&2
  exit 1
}

echo "$work/whole: two ranks, undisturbed"
"$root/$recipe/run.sh" "${words[@]}" --exp-dir "$work/whole" >"$work/whole.log" 2>&1 ||
  fail "the rehearsal failed"
words+=(--exp-dir "$work/killed")

echo "$work/killed: the same, a rank killed in the second epoch"
"$root/$recipe/run.sh" "${words[@]}" >"$work/killed.log" 2>&1 &
child=$!
wait_for 1.4
victim=
for process in /proc/[0-9]*; do
  if grep -qzxF RANK=1 "$process/environ" 2>/dev/null &&
    grep -qzxF "$work/killed" "$process/cmdline" 2>/dev/null; then
    victim=${process#/proc/}
    break # the first: its loader's workers came after it
  fi
done
[[ -n $victim ]] || fail "no process of rank 1 was found"
kill -KILL "$victim"
start=$SECONDS
while kill -0 "$child" 2>/dev/null; do
  [[ $((SECONDS - start)) -lt 60 ]] || fail "it still runs, 60 s after rank 1 was killed"
  sleep 0.2
done
wait "$child" && fail "it does not say that it failed"
echo "  it ended within $((SECONDS - start + 1)) s:"
grep -h "error" "$work/killed.log" | tail -n 2 | sed 's/^/  /'

echo "$work/killed: as a Slurm job, told to make room in the third epoch"
mkdir "$work/bin"
printf '#!/bin/sh\necho "$*" >>%q\n' "$work/requests" >"$work/bin/scontrol"
chmod +x "$work/bin/scontrol"
export PATH=$work/bin:$PATH SLURM_JOB_ID=7
"$root/tools/slurm.sh" "$root/$recipe" "${words[@]}" >"$work/requeued.log" 2>&1 &
child=$!
wait_for 2.4
kill -TERM "$child"
wait "$child" || fail "the job failed in place of being requeued"
[[ $(cat "$work/requests") == "requeue 7" ]] || fail "the job did not ask for its requeue"
grep -h "stopped in stage" "$work/requeued.log" | sed 's/^/  /'
echo "$work/killed: requeued"
"$root/tools/slurm.sh" "$root/$recipe" "${words[@]}" >"$work/again.log" 2>&1 ||
  fail "the requeued job failed"

"$root/.venv/bin/python" "$root/tools/same_model.py" "$work"/{whole,killed}/averaged.pt
whole=$(tail -n 1 "$work/whole.log") killed=$(tail -n 1 "$work/again.log")
[[ $whole == "$killed" ]] || fail "the scores differ: '$whole' and '$killed'"
echo "the scores are equal: $whole"
rm -r "$work"
