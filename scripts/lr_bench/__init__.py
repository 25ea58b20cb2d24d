"""Parts of `bench_lr.py`: workloads, methods, the runs and their report."""
