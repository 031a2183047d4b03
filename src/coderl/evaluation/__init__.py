"""Numbers and pages about programs that have been run: pass@k, n@k, the report. No model is loaded here."""
