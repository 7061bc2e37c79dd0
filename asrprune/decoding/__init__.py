"""Load a model, run a search over a cut set, write result files."""
