#!/usr/bin/env bash
# A recipe as a Slurm job that survives preemption and its time limit: it is requeued, and goes on
# from the batch where it was. Words after the recipe's folder are those of its run.sh:
#
#   sbatch tools/slurm.sh egs/librispeech/ASR --world-size 8
#   sbatch --nodes 2 tools/slurm.sh egs/librispeech/ASR --world-size 8 --nodes 2     # 16 GPUs
#
# Several nodes must all see the project's folder. The lines below are for your cluster to change.
#
#SBATCH --job-name=asrprune
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
#SBATCH --signal=B:TERM@300
set -euo pipefail

recipe=${1:?usage: sbatch tools/slurm.sh egs/CORPUS/ASR [words of its run.sh]}
shift
[[ -x $recipe/run.sh ]] || {
  echo "${0##*/}: error: $recipe/run.sh does not exist; name the folder of a recipe" >&2
  exit 2
}
stopped=false status=0
# "B:TERM@300": this script alone is told, five minutes before the time is up, and when it has to
# make room for others
trap 'stopped=true; kill -s TERM "${!-}" 2>/dev/null || true' TERM
"$recipe/run.sh" "$@" &
child=$!
wait "$child" || status=$?
while kill -0 "$child" 2>/dev/null; do # the signal has ended the wait; the run is saving its state
  status=0
  wait "$child" || status=$?
done
if [[ $stopped == true && $status -ne 0 ]]; then
  scontrol requeue "$SLURM_JOB_ID" # this script starts again, and run.sh goes on
  exit 0
fi
exit "$status"
