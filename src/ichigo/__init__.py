"""Ichigo: a training platform for speech-language models.

Importing this package costs nothing: every room below it (see CONTRIBUTING.md) is imported by the code that needs it,
so that ``ichigo --help`` starts in a fraction of a second and without torch.
"""

__version__ = "0.1.0"
