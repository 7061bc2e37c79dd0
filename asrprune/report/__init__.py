"""Reports for people on what data pruning and pathways did."""
