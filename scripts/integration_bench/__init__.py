"""One small language model under each trainer we have an adapter for: `problem` builds it, `frameworks` train it."""
