"""From text to batches: `text_source`, `tokenizer`, `token_cache`, `sampling`, `dataset`.

Importing this package imports nothing heavy; torch and transformers come with the modules that need them.
"""
