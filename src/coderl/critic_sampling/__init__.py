"""Generation with example tests and a critic: refine what passes, repair what fails (CodeRL, Algorithm 1)."""
