"""Processes killed at random moments, and what is left compared with a run that nobody disturbed.

``python -m tests.chaos --kills 30`` kills processes of whole runs (:mod:`tests.chaos.__main__`); the six kills of
``tests/services/test_chaos.py`` are of one training step.
"""
