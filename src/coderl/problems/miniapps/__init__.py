"""MiniAPPS: a generated benchmark."""
