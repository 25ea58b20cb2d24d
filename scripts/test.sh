#!/usr/bin/env bash
# Run the tests (some 10 minutes on 2 cores). Extra arguments go to pytest: `-m slow` runs the long ones.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/venv.sh
use_venv "[bench,dev]"
use_desktop
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # two tests at a time, many of which start processes of their own
python -m compileall -q src # where nothing may write bytecode, each of hundreds of processes would compile it anew
exec python -m pytest -n 2 --dist worksteal "$@"
