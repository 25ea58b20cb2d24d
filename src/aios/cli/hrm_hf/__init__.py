"""The trainer of the HRM, a user of `AutoLR`: origin, step loop, state of a run; no commands, no policy of the LR.

`adaptive_lr` alone is not the trainer's: the plain scheduler, whose path is fixed, and which imports nothing of ours.
"""
