"""Stage: the error predictor p(u | W, D), its values for programs, prefixes and tokens, and how far to trust them."""
