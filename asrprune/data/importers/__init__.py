"""Importers: what other tools and people have of a corpus, as the manifests of recipes.

Each way is a module that reads its own kind of folder or file and yields utterances, or entries of
manifests that are there already; :mod:`.split` checks and writes what any of them yields.
"""
