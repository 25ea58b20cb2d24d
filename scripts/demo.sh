#!/usr/bin/env bash
# Train a small HRM on the bundled text with the adaptive learning rate: minutes on a laptop CPU.
# Extra arguments go to `aios hrm-hf train` and win over the ones here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/venv.sh
use_venv "[gui]"
exec aios hrm-hf train --steps 1000 --brain-name "demo-$(date +%Y%m%d-%H%M%S)" "$@"
