# shellcheck shell=bash
# Puts tools/ and the project's environment on PATH; links nothing. The run.sh of every recipe sources
# this file first. A recipe that is not in egs/<corpus>/ASR says where the project is:
# ASRPRUNE_ROOT=/path/to/asrprune ./run.sh. What tools/new_recipe.sh makes elsewhere says it itself.

if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
  echo "recipes need bash 4.4 or newer; this is $BASH_VERSION (on a Mac: brew install bash)" >&2
  exit 1
fi
# "cd" keeps links as they are typed: a copy of the project may have a link to the tools of another one
asrprune_root=$(CDPATH='' cd -- "${BASH_SOURCE[0]%/*}/.." && pwd)
export PATH=$asrprune_root/tools:$PATH
if [[ -d $asrprune_root/.venv/bin ]]; then
  export VIRTUAL_ENV=$asrprune_root/.venv PATH=$asrprune_root/.venv/bin:$PATH
fi
