"""CodeXGLUE: its files, fine-tuning and prediction, metrics and commands."""
