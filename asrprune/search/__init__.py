"""Search a supernet for its best sub-networks within a budget."""
