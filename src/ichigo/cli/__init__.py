"""The command line: one file per verb.

A verb module has ``HELP`` (one line), ``arguments(parser)`` and ``main(args) -> int`` (the exit status). It imports
what it needs inside ``main``, so that ``ichigo --help`` stays under half a second on a laptop without torch.
"""
