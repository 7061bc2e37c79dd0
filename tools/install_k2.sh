#!/usr/bin/env bash
# Install k2, the fast loss on GPUs, for the torch that is installed. Optional.
#
#   tools/install_k2.sh
#
# A k2 wheel fits one release of torch, one of Python and one of CUDA. The k2 project keeps its wheels
# on pages of its own; those on PyPI are years old and break at import, so pip looks nowhere else.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ -d .venv/bin ]]; then export PATH=$PWD/.venv/bin:$PATH; fi

fail() {
  printf '%s: error: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# such as "cuda.html cuda13.0.torch2.11.0 cp311", the last two as in the names of the wheels
describe='import sys, torch
cuda = torch.version.cuda
build = ("cuda" + cuda if cuda else "cpu") + ".torch" + torch.__version__.split("+")[0]
print("cuda.html" if cuda else "cpu.html", build, "cp%d%d" % sys.version_info[:2])'
found=$(python3 -c "$describe") || fail "torch is not installed; run tools/setup_env.sh first"
read -r name build python <<<"$found"
page=https://k2-fsa.github.io/k2/$name

fetch='import sys, urllib.parse, urllib.request
try:
    page = urllib.request.urlopen(sys.argv[1], timeout=60).read().decode()
except OSError as error:
    sys.exit(str(error))
print(urllib.parse.unquote(page))'
wheels=$(python3 -c "$fetch" "$page") ||
  fail "cannot read $page; try again on a machine that can. asrprune works without k2"

version=$(grep -Eo "k2-[0-9][^-\"<> ]*[+]${build//./[.]}-$python-" <<<"$wheels" |
  cut -d - -f 2 | sort -u | tail -n 1) || true
[[ -n $version ]] || fail "$page has no wheel for $build and $python." \
  "Install a torch that it has one for, or build k2 from source; asrprune works without k2"

python3 -m pip install --no-index --no-deps --find-links "$page" "k2==$version" ||
  fail "pip could not install k2==$version from $page; its message is above"
asrprune doctor
