"""The commands of `aios`: they parse, refuse and hand over; the work lives elsewhere, and nothing below imports it."""
