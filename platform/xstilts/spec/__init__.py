"""The words of a job file, and reading them with file, line and the nearest name."""
