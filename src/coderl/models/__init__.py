"""Backbones: a language model with its tokenizer, and how one is made, adapted or read from the original's files."""
