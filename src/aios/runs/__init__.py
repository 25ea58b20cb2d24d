"""What a run leaves on disk, and how it is asked to stop: log, checkpoints, brain, lock; no settings, no engine."""
