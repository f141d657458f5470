"""The five questions, each a study: one pre-stated primary test, one figure, one check of robustness."""
