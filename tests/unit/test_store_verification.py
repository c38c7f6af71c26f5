"""Every byte of a chain: what is damaged or gone is found wherever it is, and only there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ichigo.cli.verify import tree
from ichigo.store import Artifact, Identity, MemoryObjects, Store
from ichigo.store.verification import Finding, Wanted, verify

KINDS = ("corpus", "tokens", "mix", "model")


class Chain:
    """corpus <- tokens <- mix <- model, and the model stands on the corpus directly, too."""

    def __init__(self) -> None:
        self.objects = MemoryObjects()
        self.store = Store(self.objects)
        self.made: dict[str, Artifact] = {}
        for kind in KINDS:
            parents = list(self.made.items())[-1:] + ([("corpus", self.made["corpus"])] if kind == "model" else [])
            with self.store.write(
                Identity(kind, {}, {}, ""), parents={name: one.reference for name, one in parents}
            ) as draft:
                (draft.folder / "data.bin").write_bytes(kind.encode() * 9)
                (draft.folder / "more").write_bytes(b"")
            self.made[kind] = draft.committed

    def key(self, kind: str, name: str) -> str:
        return f"{self.made[kind].reference.uri.removeprefix(self.objects.uri + '/')}/{name}"

    def pointer(self, kind: str) -> str:
        return self.key(kind, "").rstrip("/").rpartition("/")[0] + "/COMMITTED.json"

    def rewrite(self, key: str, change: Callable[[Any], object]) -> None:
        body = json.loads(self.objects.get(key))
        change(body)
        self.objects.put(key, json.dumps(body).encode())

    def verify(self, **known: str) -> dict[str, Finding]:
        found = verify(self.store, [Wanted(self.made["model"].reference.uri, **known)])
        return {finding.uri.split("/")[4]: finding for finding in found}


@pytest.fixture
def chain() -> Chain:
    return Chain()


def test_an_intact_chain_is_ok_each_artifact_once(chain: Chain) -> None:
    model = chain.made["model"].reference
    found = chain.verify(manifest=model.manifest, digest=model.digest)
    assert list(found) == ["model", "corpus", "mix", "tokens"]
    assert {finding.status for finding in found.values()} == {"ok"}
    assert [(finding.files, finding.size) for finding in found.values()] == [(2, 45), (2, 54), (2, 27), (2, 54)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_and_a_lost_file_are_found_where_they_are(chain: Chain, kind: str) -> None:
    key = chain.key(kind, "data.bin")
    data = bytearray(chain.objects.get(key))
    data[3] ^= 1
    chain.objects.put(key, bytes(data))
    found = chain.verify()
    assert {name: finding.status for name, finding in found.items()} == dict.fromkeys(KINDS, "ok") | {kind: "damaged"}
    assert found[kind].problems[0].startswith("data.bin: SHA-256 is")
    chain.objects.delete(key)
    found = chain.verify()
    assert {name: finding.status for name, finding in found.items()} == dict.fromkeys(KINDS, "ok") | {kind: "missing"}
    assert found[kind].problems == ["data.bin is gone"]


def test_a_manifest_exchanged_with_its_pointer_is_noticed_by_the_child(chain: Chain) -> None:
    """Somebody who writes files, a fitting manifest and a fitting pointer still cannot write the child's record."""
    before = chain.made["tokens"]
    with chain.store.write(before.identity, parents={"corpus": chain.made["corpus"].reference}) as draft:
        (draft.folder / "data.bin").write_bytes(b"other")
    new, old = draft.committed, chain.key("tokens", "")
    for file in ("data.bin", "manifest.json"):
        chain.objects.put(
            f"{old}{file}", chain.objects.get(f"{new.reference.uri[len(chain.objects.uri) + 1 :]}/{file}")
        )
    attempt = before.reference.uri.rpartition("/")[2]
    chain.rewrite(chain.pointer("tokens"), lambda body: body.update(attempt=attempt))
    found = chain.verify()
    assert found["tokens"].status == "damaged"
    assert found["tokens"].problems == [f"manifest.json is not that which {chain.made['mix'].reference.uri} recorded"]


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("manifest.json", lambda body: body["files"].pop(), "not that of the files"),
        ("manifest.json", lambda body: body["identity"].update(code="x"), "its fingerprint is not that"),
        ("manifest.json", lambda body: body.pop("files"), "cannot be read"),
        ("manifest.json", lambda body: body["facts"].update(x=1), "not that which its pointer recorded"),
    ],
)
def test_a_manifest_that_was_edited_is_damaged(
    chain: Chain, name: str, change: Callable[[Any], object], problem: str
) -> None:
    chain.rewrite(chain.key("mix", name), change)
    found = chain.verify()
    assert found["mix"].status == "damaged"
    assert any(problem in line for line in found["mix"].problems)


def test_what_was_never_committed_or_lies_elsewhere_is_missing(chain: Chain) -> None:
    chain.objects.delete(chain.pointer("corpus"))
    assert chain.verify()["corpus"].status == "missing"
    chain.objects.delete(chain.key("corpus", "manifest.json"))
    assert chain.verify()["corpus"].problems == ["has no manifest.json"]
    (elsewhere,) = verify(chain.store, [Wanted("s3://another/store/model/0/1")])
    assert elsewhere.status == "missing"


@pytest.mark.parametrize("known", ["manifest", "digest"])
def test_another_model_than_the_registered_one_is_damaged(chain: Chain, known: str) -> None:
    assert chain.verify(**{known: "0" * 64})["model"].status == "damaged"


def test_the_tree_shows_each_artifact_below_what_was_made_from_it(chain: Chain) -> None:
    chain.objects.delete(chain.key("tokens", "more"))
    root = chain.made["model"].reference.uri
    lines = tree(verify(chain.store, [Wanted(root)]), [root], chain.objects.uri)
    short = [" ".join(part.split("/")[0] for part in line.split()) for line in lines]
    assert short[:3] == ["ok model", "ok corpus: corpus", "ok mix: mix"]
    assert lines[3].startswith("missing      tokens: tokens/")
    assert lines[4].endswith("more is gone")
    assert lines[5].endswith("(above)")
    assert lines[-1].startswith("1 of 4 artifacts are not as committed: 4 artifacts, 8 files")
