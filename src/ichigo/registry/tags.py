"""The tags of a registered version, by which everything here knows it."""

from __future__ import annotations

DIGEST = "ichigo.digest"
"""Of the model artifact: what the model is."""
MANIFEST = "ichigo.manifest"
"""SHA-256 of the artifact's manifest, on which the whole chain of what it was made from hangs."""
RUN_KEY = "ichigo.run_key"
"""The run that registered it."""
VERDICT = "ichigo.verdict"
"""The gate's, when it was registered."""
EVIDENCE = "ichigo.evidence"
"""What the verdict stands on (:class:`ichigo.registry.models.Record`)."""
CARD = "ichigo.card"
"""Address of the artifact with the model card."""
COPIED_FROM = "ichigo.copied_from"
"""Of a copy: name, version and address of what it was copied from."""
