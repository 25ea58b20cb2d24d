"""Several processes that train together: who they are, how they start, what they agree on."""
