"""Turn a raw corpus into validated cuts with features and tokens, and into batches."""
