#!/usr/bin/env bash
# Build the documentation into docs/_build, with each warning as an error:
#
#   tools/docs.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_env.sh
export PATH=$PWD/.venv/bin:$PATH
exec sphinx-build -q -W --keep-going -b html docs docs/_build
