"""`AutoLR` inside the trainers of others: one module for each framework, which alone imports it."""
