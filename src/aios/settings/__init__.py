"""What a run is asked for: the configuration, its files, what is refused before a start; no torch, no trainer."""
