"""The truth about results: the store, what a record says, and the MLflow view that is made from them."""
