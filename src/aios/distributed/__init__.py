"""Several processes that train together: who they are, how they start, meet, merge and end; no engine, no trainer."""
