#!/usr/bin/env bash
# Make .venv at the root of the project, with the versions of requirements.txt and asrprune itself,
# or bring it up to date. Takes no time when nothing changed; killed, the same command goes on.
#
#   tools/setup_env.sh
#   PYTHON=/path/to/python3.12 tools/setup_env.sh       # another Python (3.10 to 3.14)
#
# Without a GPU, PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu saves gigabytes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  printf '%s: error: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

find_python() {
  local name
  for name in ${PYTHON:-python3.11 python3.12 python3.13 python3.10 python3.14 python3}; do
    if "$name" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  fail "no Python from 3.10 to 3.14 found${PYTHON:+ (PYTHON=$PYTHON)}; install one, or name it:" \
    "PYTHON=/path/to/python3 $0"
}

# Continuous integration tries the pages of reports in a browser; without one, those tests are skipped.
if [[ -n ${CI:-} && $(id -u) == 0 ]] && command -v apt-get >/dev/null &&
  ! command -v chromium chromium-browser google-chrome >/dev/null; then
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
    --no-install-recommends chromium; } &>/dev/null ||
    printf '%s: no Chromium could be installed; its tests are skipped\n' "${0##*/}" >&2
fi

# What the environment was made for; a moved folder needs new scripts, so its place counts too.
wanted="$PWD $(cat requirements.txt setup.py | cksum)"
stamp=.venv/asrprune-stamp
if [[ -e $stamp && $(<$stamp) == "$wanted" ]]; then
  exit 0
fi

if [[ (-e $stamp && $(<$stamp) != "$PWD "*) ]] || ! .venv/bin/python -m pip --version &>/dev/null
then
  python=$(find_python)
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python cannot make environments: its module venv is missing (on Debian and Ubuntu:" \
      "apt install python3-venv). Or name another Python: PYTHON=/path/to/python3 $0"
  "$python" -m venv --clear .venv
fi
rm -f "$stamp"
export PIP_DEFAULT_TIMEOUT=${PIP_DEFAULT_TIMEOUT:-60} PIP_RETRIES=${PIP_RETRIES:-5}
.venv/bin/python -m pip install --disable-pip-version-check -r requirements.txt -e '.[dev]' ||
  fail "the installation stopped; pip's message is above. Once its cause is removed, the same" \
    "command goes on; what was downloaded is kept"
echo "$wanted" >"$stamp.part"
mv "$stamp.part" "$stamp"
