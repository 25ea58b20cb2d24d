"""What a run leaves on disk and how it is asked to stop: the log, checkpoints, the brain bundle, stop requests."""
