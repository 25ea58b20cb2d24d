"""The tensor side of the controller: snapshots, updates, trials, numbers read back late."""
