"""Every stage, declared once, and the run that calls them in order."""
