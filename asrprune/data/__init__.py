"""From a raw corpus to validated cuts with features and tokens, and to batches."""
