"""Rows of sound and text: where they come from, how they are checked and split, and how they are kept.

- :mod:`ichigo.corpus.rows`: what a row is, and what is written down about one that was set aside
- :mod:`ichigo.corpus.audiofolder`: recordings in the Hugging Face AudioFolder shape
- :mod:`ichigo.corpus.world`: a generated world of questions and answers, and what of it is kept from training
- :mod:`ichigo.corpus.spoken`: the recipe's own sentences and worlds, spoken by synthetic voices
- :mod:`ichigo.corpus.noise`: sound that is no speech
- :mod:`ichigo.corpus.texts`: the written side, ``texts.parquet``
- :mod:`ichigo.corpus.shards`: Parquet shards, quarantine and summary
- :mod:`ichigo.corpus.tokens`: what a row becomes under a tokenizer
"""
