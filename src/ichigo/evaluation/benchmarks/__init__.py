"""Published spoken benchmarks, scored the way their authors do and our way, side by side.

``rows``        Parquet files in the shapes of VoiceBench and AudioBench; what cannot be used is set aside and counted
``voicebench``  the answers that VoiceBench's rules read out of a reply: letters and refusals
``audiobench``  AudioBench's word errors and its string match
``asking``      asks a model with its speech tokenizer and scores every reply twice
``report``      metrics, the table of both ways, and the items in Parquet

Only ``asking`` needs torch. This package itself imports nothing.
"""

from __future__ import annotations
