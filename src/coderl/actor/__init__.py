"""The actor: drawing programs from p(W|D)."""
