"""Rows of sound and text: where they come from, how they are checked and split, and how they are kept.

- :mod:`ichigo.corpus.rows`: what a row is, and what is written down about one that was set aside
- :mod:`ichigo.corpus.sources`: everything that a recipe's data names, read once, split and counted
- :mod:`ichigo.corpus.lines`: what every source gives, and how a line becomes rows or is set aside
- :mod:`ichigo.corpus.files`: files here or in S3, never outside a source's root
- :mod:`ichigo.corpus.audiofolder`, :mod:`~ichigo.corpus.parquetsound`, :mod:`~ichigo.corpus.webdataset`: recordings
- :mod:`ichigo.corpus.soundstrings`: sound tokens as published for Ichigo
- :mod:`ichigo.corpus.instructions`: written questions through filters, spoken
- :mod:`ichigo.corpus.tables`, :mod:`~ichigo.corpus.jsonlines`, :mod:`~ichigo.corpus.tar`: containers, read as streams
- :mod:`ichigo.corpus.survey`: what a source holds, in numbers, and its overlap with evaluation
- :mod:`ichigo.corpus.world`: a generated world of questions and answers, and what of it is kept from training
- :mod:`ichigo.corpus.spoken`: the recipe's own sentences and worlds, spoken by synthetic voices
- :mod:`ichigo.corpus.noise`: sound that is no speech
- :mod:`ichigo.corpus.texts`: the written side, ``texts.parquet``
- :mod:`ichigo.corpus.shards`: Parquet shards, quarantine and summary
- :mod:`ichigo.corpus.tokens`: what a row becomes under a tokenizer
- :mod:`ichigo.corpus.tokenising`: how it becomes that, with what :mod:`ichigo.corpus.token_cache` has already
- :mod:`ichigo.corpus.provenance`: which rows a stage's data was made from
- :mod:`ichigo.corpus.tracing`: what was made from a row or a speaker
"""
