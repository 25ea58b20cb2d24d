"""What a run is asked for: the configuration, its files, what can be refused before anything starts; no torch."""
