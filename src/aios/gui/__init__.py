"""The desktop window: a form for a training, the run as it goes, and the brains there are.

`form`, `wording`, `training_process`, `brains`, `run_feed` and `preferences` know nothing of Tk; the rest draws them.
"""
