"""The window: a form, the run as it goes, the brains; it starts `aios` as a process and imports no trainer, no torch.

`form`, `wording`, `training_process`, `run_feed` and `preferences` know nothing of Tk; the rest draws them.
"""
