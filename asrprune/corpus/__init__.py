"""Raw corpus to validated cuts with features and tokens; batches; rehearsal corpora."""
