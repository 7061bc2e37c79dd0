"""Fixtures of the tests of data preparation, which rehearsal corpora go through as well."""

from tests.data.conftest import _one_thread, importer  # noqa: F401
