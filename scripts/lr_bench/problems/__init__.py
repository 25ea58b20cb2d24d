"""What is trained: models and data, each problem a function of its seed alone; nothing here knows of optimizers."""
