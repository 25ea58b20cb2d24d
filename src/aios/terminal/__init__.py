"""What a person at the terminal sees: progress, tables, a log live; made from records alone, no torch, no trainer."""
