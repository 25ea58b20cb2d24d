"""Training a Hierarchical Reasoning Model as a transformers model: run, step loop, adaptive learning rate."""
