"""Engines draw programs from p(W | D)."""
