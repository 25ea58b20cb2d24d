"""What a person at the terminal sees: progress, tables, a live view of a log."""
