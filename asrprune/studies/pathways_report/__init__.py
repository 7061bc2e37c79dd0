"""What the languages of a pathways model have, what they share, and how that came about."""
