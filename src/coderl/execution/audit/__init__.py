"""A battery of tricky, wrong and hostile programs, and the graders that it tries."""
