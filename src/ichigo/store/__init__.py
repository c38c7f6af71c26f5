"""Where bytes live: artifacts in S3 that are valid only once a pointer to their manifest was written, last.

``objects``       the port to an object store: S3 by boto3, and an in-memory fake for unit tests
``patience``      how long an S3 that does not answer is asked again
``artifacts``     identities, drafts, manifests, references, reuse
``workplace``     where a draft lies on this disk until it is committed, also by a later process
``verification``  whether stored bytes are still the committed ones
``garbage``       what nothing refers to
``code``          the digest of the source files that a step can reach

Layout below the store's root (``s3://bucket/prefix``)::

    <kind>/<fingerprint>/<attempt>/<files…>           written first, by one writer alone
    <kind>/<fingerprint>/<attempt>/manifest.json      sizes, SHA-256, parents, identity, code digest
    <kind>/<fingerprint>/COMMITTED.json               the pointer, written last
    index/<kind>/<newest first>-<fingerprint>.json    a hint: what was built lately, to say which field changed
    recipes/<digest>.json    runs/<run key>/…         small records of runs
    checkpoints/<lineage>/<name>/…  LATEST.json       a stage's checkpoints, and the pointer to those that count
    cache/tokens/<tokenizer>/<code>/…                 sound tokens by the sound that they stand for
"""

from ichigo.store.artifacts import Artifact, Draft, Identity, Reference, Store
from ichigo.store.code import code_digest
from ichigo.store.objects import MemoryObjects, NoSuchObject, Objects, S3Objects, open_objects

__all__ = [
    "Artifact",
    "Draft",
    "Identity",
    "MemoryObjects",
    "NoSuchObject",
    "Objects",
    "Reference",
    "S3Objects",
    "Store",
    "code_digest",
    "open_objects",
]
