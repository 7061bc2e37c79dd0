"""The report on a pathways model: masks of its languages, their overlap, and their changes."""
