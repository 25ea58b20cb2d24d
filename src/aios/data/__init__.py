"""From text to batches by position, `text_source` to `dataset`; no model, no settings, no state of a run.

Importing this package imports nothing heavy; torch and transformers come with the modules that need them.
"""
