"""The benchmarks' own files and scores: written from a job, or scored wherever they came from; no torch."""
