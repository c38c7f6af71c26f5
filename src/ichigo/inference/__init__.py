"""Generation: asking a model, evaluating it and serving it.

``engine``   a model folder opened once: greedy answers in batches or token by token, loss of labelled tokens
``session``  a spoken or written question in, an answer with its times out, also heard while it is said; text in,
             speech tokens out
``latency``  how long a person waits for the first token, by the length of the speech
``chain``    from a model's artifact to its folder and its speech tokenizer on disk
``level``    whether a recording holds any sound

The first three import torch; this package itself imports nothing.
"""

from __future__ import annotations
