"""Composition only: ``ichigo.py`` is the pipeline, ``ichigo.yaml`` its compiled form, kept in git as the golden IR."""
