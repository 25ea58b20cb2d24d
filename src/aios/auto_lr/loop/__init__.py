"""The controller's tensor side: engines, updates, snapshots, trials, numbers read back, batches; decides nothing."""
