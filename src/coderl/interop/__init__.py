"""Doors to other tools: the original's files, samples files, TRL."""
