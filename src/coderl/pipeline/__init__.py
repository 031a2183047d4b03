"""All stages in order, and each as a function from folders to a folder."""
