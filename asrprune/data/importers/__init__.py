"""Import corpora: turn tables, folders and manifests of other tools into manifests for recipes.

Each importer is a module that reads one type of folder or file. An importer yields utterances, or
entries of existing manifests. `asrprune.data.importers.split` checks and writes these.
"""
