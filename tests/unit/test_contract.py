"""The token contract: ids, digest, and refusal of anything made under another one."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models

from ichigo.errors import ContractError, DataError, ModelError
from ichigo.hashing import sha256_file
from ichigo.language.contract import SOUND_TOKENS, SPECIAL_TOKENS, TokenContract, contract_for

LLAMA_SPECIALS = {
    128000: "<|begin_of_text|>",
    128001: "<|end_of_text|>",
    128004: "<|finetune_right_pad_id|>",
    128006: "<|start_header_id|>",
    128007: "<|end_header_id|>",
    128009: "<|eot_id|>",
}


def write_base(folder: Path, plain: int, specials: list[str], rows: int) -> Path:
    """A base of ``plain`` word tokens followed by ``specials``, with an embedding of ``rows`` rows by its config."""
    folder.mkdir()
    tokenizer = Tokenizer(models.WordLevel({f"w{index}": index for index in range(plain)}, unk_token="w0"))
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in specials])
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "config.json").write_text(json.dumps({"vocab_size": rows}))
    return folder


@pytest.fixture
def contract(tmp_path: Path) -> TokenContract:
    return contract_for(write_base(tmp_path / "base", 10, list(SPECIAL_TOKENS.values()), 16), "whispervq:abc")


def test_llama_3_1_gets_the_ids_of_the_released_ichigo_models(tmp_path: Path) -> None:
    specials = [LLAMA_SPECIALS.get(token, f"<|reserved_{token}|>") for token in range(128_000, 128_256)]
    base = write_base(tmp_path / "llama", 128_000, specials, 128_256)

    contract = contract_for(base, "whispervq:abc")

    assert (contract.sound_start, contract.sound_end, contract.first_sound) == (128_256, 128_257, 128_258)
    assert contract.sound_ids([0, 512]).tolist() == [128_258, 128_770]
    assert (contract.text_vocabulary, contract.vocabulary) == (128_256, 128_771)
    assert {getattr(contract, field): name for field, name in SPECIAL_TOKENS.items()} == LLAMA_SPECIALS
    assert contract.text_tokenizer == sha256_file(base / "tokenizer.json")


def test_surplus_rows_of_the_base_are_used_before_new_ones_are_added(tmp_path: Path) -> None:
    names = list(SPECIAL_TOKENS.values())

    few = contract_for(write_base(tmp_path / "few", 10, names, 64), "vq")
    many = contract_for(write_base(tmp_path / "many", 10, names, 1024), "vq")

    assert (few.sound_start, few.vocabulary) == (16, 16 + 515)
    assert (many.sound_start, many.vocabulary) == (16, 1024)


@pytest.mark.parametrize("missing", SPECIAL_TOKENS.values())
def test_a_base_without_one_special_token_is_refused_by_its_name(tmp_path: Path, missing: str) -> None:
    base = write_base(tmp_path / "base", 10, [name for name in SPECIAL_TOKENS.values() if name != missing], 16)
    with pytest.raises(ModelError, match=missing.replace("|", r"\|")):
        contract_for(base, "vq")


def test_a_published_ichigo_is_adopted_with_its_ids(tmp_path: Path) -> None:
    specials = [LLAMA_SPECIALS.get(token, f"<|reserved_{token}|>") for token in range(128_000, 128_256)]
    text_model = contract_for(write_base(tmp_path / "llama", 128_000, specials, 128_256), "whispervq:abc")
    published = write_base(tmp_path / "ichigo", 128_000, [*specials, *SOUND_TOKENS], 128_771)

    contract = contract_for(published, "whispervq:abc")

    assert contract == replace(text_model, text_tokenizer=sha256_file(published / "tokenizer.json"))
    assert (contract.text_vocabulary, contract.first_sound, contract.vocabulary) == (128_256, 128_258, 128_771)


def test_an_adopted_base_keeps_surplus_rows_and_tokens_after_the_sound_tokens(tmp_path: Path) -> None:
    names = [*SPECIAL_TOKENS.values(), *SOUND_TOKENS, "<|duration_02|>"]
    contract = contract_for(write_base(tmp_path / "base", 10, names, 1024), "vq")
    assert (contract.sound_start, contract.vocabulary) == (16, 1024)


SWAPPED = [*SOUND_TOKENS[1::-1], *SOUND_TOKENS[2:]]


@pytest.mark.parametrize(
    ("names", "faults"),
    [
        (["<|sound_start|>"], "from id 16 on: no <|sound_end|>, no <|sound_0000|>, no <|sound_0001|> and 511 more;"),
        (SOUND_TOKENS[:-1], "from id 16 on: no <|sound_0512|>;"),
        (SOUND_TOKENS[1:], "from id 16 on: no <|sound_start|>, <|sound_end|> has id 16 instead of 17"),
        (SWAPPED, "from id 17 on: <|sound_end|> has id 16 instead of 18, <|sound_0000|> has id 18 instead of 19,"),
        (
            [*SOUND_TOKENS[:2], "<|mute|>", *SOUND_TOKENS[2:]],
            "from id 16 on: <|sound_0000|> has id 19 instead of 18, <|sound_0001|> has id 20 instead of 19,",
        ),
        ([*SOUND_TOKENS, "<|sound_0513|>"], "from id 16 on: <|sound_0513|> is none of them;"),
    ],
    ids=["one", "all but the last", "all but the first", "swapped", "a gap", "one too many"],
)
def test_another_expansion_is_refused_and_says_where_it_differs(tmp_path: Path, names: list[str], faults: str) -> None:
    base = write_base(tmp_path / "base", 10, [*SPECIAL_TOKENS.values(), *names], 16 + len(names))
    with pytest.raises(ModelError, match=re.escape(faults)):
        contract_for(base, "vq")


def test_a_folder_without_a_readable_tokenizer_or_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        contract_for(tmp_path, "vq")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="not a tokenizer file"):
        contract_for(tmp_path, "vq")
    base = write_base(tmp_path / "base", 10, list(SPECIAL_TOKENS.values()), 16)
    (base / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="vocab_size"):
        contract_for(base, "vq")


def test_a_saved_contract_comes_back_equal_and_in_the_same_bytes(tmp_path: Path, contract: TokenContract) -> None:
    first = contract.save(tmp_path).read_bytes()
    loaded = TokenContract.load(tmp_path)
    assert loaded == contract
    assert loaded.save(tmp_path).read_bytes() == first
    assert json.loads(first)["digest"] == contract.digest


def test_one_flipped_id_in_the_file_is_found_by_the_digest(tmp_path: Path, contract: TokenContract) -> None:
    path = contract.save(tmp_path)
    values = json.loads(path.read_text())
    values["first_sound"] += 1
    path.write_text(json.dumps(values))
    with pytest.raises(ContractError, match="digest"):
        TokenContract.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "cannot be read"), ("[1]", "not an object"), ("{}", "missing or unknown"), ('{"bos": 1}', "text_tokenizer")],
)
def test_a_damaged_contract_file_says_what_is_wrong(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "contract.json").write_text(text)
    with pytest.raises(ContractError, match=reason):
        TokenContract.load(tmp_path)


def test_a_folder_without_a_contract_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"contract\.json"):
        TokenContract.load(tmp_path)


def test_a_mismatch_names_each_differing_field_with_both_values_and_no_other(contract: TokenContract) -> None:
    other = replace(contract, eot=contract.eot + 1, speech_tokenizer="whispervq:def")
    with pytest.raises(ContractError) as caught:
        contract.require_same(other, "the shard s-7")
    assert str(caught.value).splitlines()[1:] == [
        f"  - eot: expected {contract.eot}, found {contract.eot + 1}",
        "  - speech_tokenizer: expected whispervq:abc, found whispervq:def",
    ]
    assert "the shard s-7" in str(caught.value)


def test_equal_contracts_agree_and_any_field_changes_the_digest(contract: TokenContract) -> None:
    contract.require_same(replace(contract), "a copy")
    assert replace(contract).digest == contract.digest
    assert replace(contract, pad=contract.pad + 1).digest != contract.digest


@pytest.mark.parametrize("code", [-1, 513])
def test_a_code_outside_the_codebook_is_refused(contract: TokenContract, code: int) -> None:
    with pytest.raises(DataError, match=f"sound code {code} "):
        contract.sound_ids(np.array([3, code], dtype=np.int16))
