#!/usr/bin/env bash
# From a fresh checkout to a word error rate on two CPU cores: make the environment, then run every
# stage of LibriSpeech's recipe on a little synthetic speech. Options go to run.sh.
#
#   tools/quickstart.sh
#   tools/quickstart.sh --rehearsal-hours 0.2 training.epochs=3
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/tools/setup_env.sh"
exec "$root/egs/librispeech/ASR/run.sh" --rehearsal true "$@"
