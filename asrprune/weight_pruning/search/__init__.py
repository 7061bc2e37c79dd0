"""The search for sub-networks, over any measure of their size and their loss."""
