"""Programs run by other machines."""
