"""Notes of refused versions: who stands for them, and what happens to those that nobody stands for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from releases import OURS, THEIRS, rewrite, trusting, version_of

from pipeline.io.registry.registry import open_registry
from pipeline.records.release import Refusal

REFUSAL = Refusal(
    voice="ana",
    version=version_of(1),
    judges="5" * 64,
    exit_code=11,
    reason="DNSMOS overall: 1.9 is below 2",
    at=datetime(2026, 1, 10, tzinfo=UTC),
    actor="CI",
)


@pytest.fixture
def open_as(tmp_path):
    def opened(*keys, signer=None):
        return open_registry("file:registry", root=tmp_path, trust=trusting(*keys, signer=signer))

    return opened


@pytest.fixture
def note(tmp_path):
    return tmp_path / "registry" / ".refusals" / "ana.json"


def told(registry) -> list[tuple[str, bool]]:
    return [(finding.message, finding.is_damage) for finding in registry.examine_refusals()]


def test_a_note_is_signed_where_there_is_a_key_and_believed(open_as):
    open_as(OURS, signer=OURS).refuse(REFUSAL)
    for reader in (open_as(OURS), open_as(OURS, THEIRS), open_as()):
        (believed,) = reader.refusals().values()
        assert believed.model_copy(update={"signature": None}) == REFUSAL
        assert told(reader) == []


def test_without_keys_a_note_counts_as_it_lies(open_as):
    open_as().refuse(REFUSAL)
    assert open_as().refusals() == {"ana": REFUSAL}


@pytest.mark.parametrize(("signer", "why"), [(None, "is not signed"), (THEIRS, "is signed by key")])
def test_with_trusted_keys_a_note_of_somebody_else_keeps_nothing_from_being_tried(open_as, signer, why):
    open_as(signer=signer).refuse(REFUSAL)
    assert open_as(OURS).refusals() == {}
    ((message, is_damage),) = told(open_as(OURS))
    assert message.startswith(f".refusals/ana.json {why}")
    assert is_damage == (signer is not None), "a job without a key is no attack"


@pytest.mark.parametrize("keys", [(OURS,), ()])
def test_a_changed_note_is_named_and_not_believed(open_as, note, keys):
    open_as(OURS, signer=OURS).refuse(REFUSAL)
    rewrite(note, lambda content: content.update(version=version_of(2)))
    assert open_as(*keys).refusals() == {}
    assert told(open_as(*keys)) == [
        (".refusals/ana.json is not what was signed: it was changed, or its signature was", True)
    ]


def test_the_note_of_another_voice_is_not_believed(open_as, note):
    open_as(signer=OURS).refuse(REFUSAL)
    note.rename(note.with_name("ben.json"))
    assert open_as().refusals() == {}
    assert told(open_as()) == [(".refusals/ben.json is of the voice ana: it was copied here", True)]
    open_as(signer=OURS).refuse(REFUSAL)
    assert list(open_as().refusals()) == ["ana"], "the next refusal is noted all the same"
