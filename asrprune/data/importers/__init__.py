"""Importers: what other tools and people have of a corpus, as the manifests of recipes.

Each importer is a module that reads one type of folder or file. It yields utterances, or entries of
manifests that exist already. `asrprune.data.importers.split` checks and writes them.
"""
