"""Rows of sound and text: where they come from, how they are checked and split, and how they are kept.

- :mod:`ichigo.corpus.rows`: what a row is, and what is written down about one that was set aside
- :mod:`ichigo.corpus.audiofolder`: recordings in the Hugging Face AudioFolder shape
- :mod:`ichigo.corpus.spoken`: the recipe's own sentences, spoken by synthetic voices
- :mod:`ichigo.corpus.shards`: Parquet shards, quarantine and summary
"""
