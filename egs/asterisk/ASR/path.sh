# shellcheck shell=bash
# Sourced by run.sh: puts the shared tools/ and the project's environment on PATH, links nothing.
# A recipe kept outside of the project names its root: ASRPRUNE_ROOT=/path/to/asrprune ./run.sh

if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
  echo "recipes need bash 4.4 or newer; this is $BASH_VERSION (on a Mac: brew install bash)" >&2
  exit 1
fi
asrprune_root=${ASRPRUNE_ROOT:-$PWD}
while [[ ! -e $asrprune_root/tools/stages.sh ]]; do
  if [[ -z $asrprune_root || -n ${ASRPRUNE_ROOT-} ]]; then
    echo "no tools/stages.sh above $PWD; set ASRPRUNE_ROOT to the root of asrprune" >&2
    exit 1
  fi
  asrprune_root=${asrprune_root%/*}
done
export PATH=$asrprune_root/tools:$PATH
if [[ -d $asrprune_root/.venv/bin ]]; then
  export VIRTUAL_ENV=$asrprune_root/.venv PATH=$asrprune_root/.venv/bin:$PATH
fi
