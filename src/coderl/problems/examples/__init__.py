"""The example tests that problem statements show, read from their text."""
