"""What a log recorded of a run, and the controller driven by it again under other settings."""
