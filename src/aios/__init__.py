"""AI-OS: train Hierarchical Reasoning Models without choosing a learning rate."""

__version__ = "0.1.0"
