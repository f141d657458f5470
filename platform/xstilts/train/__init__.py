"""Training: batches that are a function of the step, one loop, and checkpoints that resume it bit for bit."""
