"""Sound <-> sound tokens: reading audio, speaking text, and WhisperVQ (load, fit, encode).

- :mod:`ichigo.speech.codes`: how many sound tokens a waveform gives; imports nothing heavy
- :mod:`ichigo.speech.audio`: recordings in, 16 kHz mono float32 out
- :mod:`ichigo.speech.synthesis`: text in, speech with timed phones out
- :mod:`ichigo.speech.vq`: :class:`~ichigo.speech.vq.WhisperVQ`, waveforms in, sound tokens out (torch)
- :mod:`ichigo.speech.stream`: the same tokens while somebody speaks (torch)
- :mod:`ichigo.speech.fit`: a small WhisperVQ fitted on a corpus (torch)
- :mod:`ichigo.speech.lexicon`: sound tokens read back as phones and words (torch)
- :mod:`ichigo.speech.whisperspeech`: text in, human-sounding speech out, on a GPU with an environment of its own
"""
