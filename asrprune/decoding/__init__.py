"""Load a model, decode cuts with a search, and write result files."""
