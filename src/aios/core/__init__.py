"""The HRM, its sizes, and how files of strangers are read; loads no torch itself; no data, no state of a run."""
