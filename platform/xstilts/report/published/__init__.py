"""Published numbers that runs are set beside: tables with a source a row, and one tidy frame of them."""
