"""What a training log shows: followed, kept in bounded memory, put into words, drawn; no torch, no Tk, no settings."""
