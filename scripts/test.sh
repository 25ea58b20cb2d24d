#!/usr/bin/env bash
# Run the tests (under 10 minutes on 2 cores). Extra arguments go to pytest: `-m slow` runs the long ones.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/venv.sh
use_venv "[bench,dev]"
exec python -m pytest "$@"
