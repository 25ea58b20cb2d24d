"""What a log recorded of a run, and the same controller driven by it; no rules of its own, no torch, no trainer."""
