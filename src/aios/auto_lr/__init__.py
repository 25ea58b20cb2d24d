"""A learning rate nobody has to choose, for any torch loop: search, noise-aware rules, trouble ladder, anneal."""
