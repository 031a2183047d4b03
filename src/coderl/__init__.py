"""coderl: code-generating language models that learn from their compiler errors and unit tests."""

__version__ = "0.1.0"
