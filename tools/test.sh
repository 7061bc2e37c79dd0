#!/usr/bin/env bash
# Make the environment, check the style of all code, run the tests. Options go to pytest.
#
#   tools/test.sh
#   tools/test.sh tests/recipes -k lock
#   tools/test.sh --exhaustive         # also what takes longest (tests/exhaustive.py)
#   TEST_JOBS=0 tools/test.sh tests/recipes --pdb   # in one process; by default in three
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_env.sh
export PATH=$PWD/.venv/bin:$PATH
ruff check .
ruff format --check .
shellcheck .ci/run tools/*.sh egs/*/ASR/*.sh egs/*/ASR/local/*.sh tests/recipes/fakes/*
mypy
# On two cores three processes, for some tests wait, each with one thread. What a process compiles
# serves the next ones.
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
unset PYTHONDONTWRITEBYTECODE
exec pytest -n "${TEST_JOBS:-3}" --dist loadfile --no-loadscope-reorder "$@" # a file's tests share what they made
