"""The language room: text and sound tokens as one vocabulary.

``contract`` says which id means what; ``layouts`` turns samples into ids and labels; ``mixing`` draws a stage's
samples; ``packing`` fills sequences; ``noising`` replaces sound tokens of questions while training; ``base`` makes or
checks the text model; ``expand`` gives it rows for the sound tokens; ``checkpoint`` opens a model folder under its
contract. Only ``base``, ``expand`` and ``checkpoint`` compute with torch, and import it when called.
"""

from __future__ import annotations

from ichigo.language.contract import TokenContract, contract_for
from ichigo.language.layouts import Example, Layouts, Sample, Turn

__all__ = ["Example", "Layouts", "Sample", "TokenContract", "Turn", "contract_for"]
