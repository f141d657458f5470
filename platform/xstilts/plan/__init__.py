"""Plans: what is to be done, decided without doing any of it."""
