"""What the files and folders within a brain's folder are called, for all that write, read or look for them."""

from __future__ import annotations

LOG_FILE = "metrics.jsonl"
"""The training log, unless --log-file names another."""
STOP_FILE = "STOP"
"""Whose appearance asks a run to stop, unless --stop-file names another."""
BRAIN_FILE = "brain.json"
"""What the brain is."""
CHECKPOINTS_FOLDER = "checkpoints"
BEST_FOLDER = "best"
"""The brain of the best evaluation."""
CONFIG_FILE = "config.json"
"""What transformers knows of a model by; a checkpoint has it, too."""
WEIGHTS_FILE = "model.safetensors"
"""The weights, in one file."""
WEIGHTS_INDEX_FILE = "model.safetensors.index.json"
"""What lies in which of several."""
