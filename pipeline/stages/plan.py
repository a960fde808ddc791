"""plan: compares the voices at a revision with the registry and says what has to be done for each.

The registry decides, not the diff: a voice is done when the channel serves the version of its folder. So merges, force
pushes, shallow clones, first pushes and pipelines that failed in between need no special case; the base only explains.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from models.errors import ModelsError
from models.loading.bases import Base, find_base
from pipeline.config import Resolved, VoiceKeys, resolve, weaker_gate
from pipeline.errors import ConsentError, SettingsError, UsageError
from pipeline.io.ci import repository_name
from pipeline.io.git import Repository, find_repository
from pipeline.io.memory import Memory
from pipeline.io.protected import Governing, forbid_changed
from pipeline.io.registry.listing import VoiceState
from pipeline.io.registry.registry import Registry
from pipeline.io.snapshots import Snapshot, TreeDigests, read_commit, read_worktree
from pipeline.io.voices import MANIFEST_FILE, check_consent, parse_manifest
from pipeline.io.yaml import parse_table
from pipeline.records.metrics import minima
from pipeline.records.plan import FOLDER_DELETED, Change, Plan, PlanEntry
from pipeline.records.release import (
    ChannelPointer,
    Refusal,
    Release,
    judges_digest,
    made_by,
    recipe_digest,
    release_version,
)
from pipeline.records.settings import GeneralSettings
from pipeline.records.voice import VoiceManifest


@dataclass(frozen=True)
class FoundVoice:
    """A voice folder at the planned revision.

    Attributes:
        judges: what a verdict on this version would rest on.
        base: name and digest of its base.
        content: digest of its folder.
        needs_review: its candidates wait for a person instead of going to production, whatever the gate says.
        problem: why voice.yaml cannot be used; the run will say the same and stop there.
        consent_problem: why the voice may not be used.
    """

    name: str
    version: str | None = None
    judges: str = ""
    base: tuple[str, str] = ("", "")
    content: str = ""
    needs_review: bool = False
    problem: str = ""
    consent_problem: str = ""


def decide(
    found: Mapping[str, FoundVoice],
    changes: Mapping[str, Change],
    states: Mapping[str, VoiceState],
    *,
    elsewhere: Mapping[str, str] | None = None,
    refusals: Mapping[str, Refusal] | None = None,
    served: Mapping[str, Release] | None = None,
) -> list[PlanEntry]:
    """The core: what to do for every voice, in order of name. Reads nothing.

    Args:
        found: voices at head.
        changes: what happened to folders since the base; empty when there is no base to compare with.
        states: the registry.
        elsewhere: voices that another repository published -> its name; never retired from here.
        refusals: what was tried last and refused; the same again is skipped.
        served: manifests of versions on production that are not those of head.
    """
    holders = {version: voice for voice, state in states.items() for version in state.versions}
    untouched: Change = "unchanged" if changes else "unknown"
    entries = []
    for name in sorted({*found, *changes, *states}):
        change, state = changes.get(name, untouched), states.get(name)
        if name in found:
            one = _decide_present(found[name], change, state, holders, (refusals or {}).get(name))
            entries.append(_with_base_told(one, found[name], (served or {}).get(name)))
        elif state is not None and _is_served(state):
            entries.append(_decide_gone(name, change, state, (elsewhere or {}).get(name, "")))
        elif change == "deleted":
            entries.append(PlanEntry(voice=name, action="skip", change=change, reason="deleted; nothing was published"))
    return entries


def _decide_present(
    voice: FoundVoice,
    change: Change,
    state: VoiceState | None,
    holders: Mapping[str, str],
    refusal: Refusal | None,
) -> PlanEntry:
    production = state.production if state else None
    entry = PlanEntry(
        voice=voice.name,
        action="train",
        change=change,
        reason="",
        version=voice.version,
        published=production.version if production else None,
    )

    def answer(action: str, reason: str, **more: object) -> PlanEntry:
        return entry.model_copy(update={"action": action, "reason": reason, **more})

    if voice.consent_problem and state is not None and _is_served(state):
        return answer("retire", voice.consent_problem)
    problem = voice.consent_problem or voice.problem
    if problem and change == "unchanged":
        return answer("skip", problem, is_refused=True)
    if problem:
        return answer("train", f"{problem}; the run will refuse it")
    version = voice.version or ""
    if production is not None and production.version == version:
        return answer("skip", f"production serves {version}")
    held = _held_back(version, state)
    if held:
        return answer("skip", held)
    candidate = state.candidate if state else None
    needs_review = voice.needs_review or (state is not None and state.is_reviewed)
    if needs_review and candidate is not None and candidate.version == version:
        why = f" ({candidate.why_published})" if candidate.why_published else ""
        return answer("skip", f"{version} waits for review{why}; voxline registry promote {voice.name}")
    if state is not None and version in state.versions:
        return answer("republish", f"the registry holds {version}")
    if version in holders:
        source = holders[version]
        return answer("republish", f"the registry holds {version} as {source}", copied_from=source)
    if refusal is not None and (refusal.version, refusal.judges) == (version, voice.judges):
        return answer("skip", f"refused on {refusal.at:%Y-%m-%d}: {refusal.reason}", is_refused=True)
    return answer("train", _why_train(change, production))


def _with_base_told(entry: PlanEntry, voice: FoundVoice, served: Release | None) -> PlanEntry:
    """Where a voice trains for no other reason than its base: which one, and who still speaks what is published."""
    if entry.action != "train" or entry.change in ("added", "renamed", "changed") or served is None:
        return entry
    name, digest = voice.base
    if (served.content_digest, served.base) != (voice.content, name) or served.base_digest == digest:
        return entry
    told = f"base {name} is another one ({digest[:12]}) than that of {served.version} ({served.base_digest[:12]})"
    return entry.model_copy(update={"reason": f"{told}, which {made_by(served.voxline_version)} speaks"})


def _held_back(version: str, state: VoiceState | None) -> str:
    """Why a version must not be republished although the folder asks for it: a person took it off production."""
    pointer = state.production if state else None
    if pointer is None or state is None:
        return ""
    event = pointer.event
    if version in state.rolled_back:
        return f"{version} was rolled back by {event.actor} on {event.at:%Y-%m-%d}; change the folder, or promote it"
    if event.action == "retire" and event.previous == version and event.reason != FOLDER_DELETED:
        return f"retired by {event.actor} on {event.at:%Y-%m-%d}{': ' if event.reason else ''}{event.reason}"
    return ""


def _why_train(change: Change, production: ChannelPointer | None) -> str:
    served = production.version if production else None
    if change == "added":
        return "new voice"
    if change == "renamed":
        return "renamed, and its content is not published under the old name"
    if change == "changed":
        return f"changed; production serves {served}" if served else "changed, never published"
    if served:
        return f"content, base or recipe differ from {served} on production"
    return "never published"


def _decide_gone(name: str, change: Change, state: VoiceState, elsewhere: str) -> PlanEntry:
    published = state.production.version if state.production else None
    if elsewhere:
        reason = f"published from {elsewhere}, not from this repository"
        if change == "deleted":
            reason = f"deleted here, but {reason}: served on; voxline registry retire {name} takes it off"
        return PlanEntry(
            voice=name, action="skip", change=change, reason=reason, published=published, is_elsewhere=True
        )
    return PlanEntry(voice=name, action="retire", change=change, reason=FOLDER_DELETED, published=published)


def _is_served(state: VoiceState) -> bool:
    return any(pointer is not None and pointer.version is not None for pointer in (state.production, state.candidate))


@dataclass(frozen=True)
class Revisions:
    """What a plan compares.

    Attributes:
        base: revision that changes are counted from; anything unusable counts as none and is noted.
        is_worktree: plan the files on disk, with what is not committed yet, and not those of ``head``.
    """

    base: str | None = None
    head: str = "HEAD"
    is_worktree: bool = False


@dataclass
class Identifier:
    """Versions of voices: resolves settings and base of each, remembering what voices have in common.

    Attributes:
        code: version of the code that judges, see ``judges_digest``.
        governing: what counts in place of pipeline.toml, where the tree is a stranger's.
    """

    root: Path
    environment: Mapping[str, str]
    flags: Mapping[str, Any]
    code: str = ""
    governing: Governing | None = None
    _known: dict[str, tuple[tuple[str, str], str, str, bool]] = field(default_factory=dict)

    def identify(self, name: str, manifest: VoiceManifest, content: str, source: str) -> FoundVoice:
        """A readable voice with its version. Raises SettingsError."""
        base, recipe, judges, is_candidate = self._shared(manifest.settings_overrides(), source)
        needs_review = is_candidate or manifest.review == "required"
        version = release_version(content, base[1], recipe)
        return FoundVoice(name, version, judges, base, content, needs_review)

    def _shared(self, overrides: dict[str, Any], source: str) -> tuple[tuple[str, str], str, str, bool]:
        key = json.dumps(overrides, sort_keys=True, default=str)
        if key not in self._known:
            resolved = resolve(
                root=self.root,
                environment=self.environment,
                voice=VoiceKeys(overrides, source),
                flags=self.flags,
                pipeline=self.governing.layer if self.governing else None,
            )
            settings = resolved.settings
            base = load_known_base(settings.voxline.base, self.root, settings.voxline, self.governing)
            forbid_below_card(resolved, base, source)
            self._known[key] = (
                (base.name, base.digest),
                recipe_digest(settings),
                judges_digest(settings, self.code),
                settings.publish.channel == "candidate",
            )
        return self._known[key]


def load_known_base(name: str, root: Path, general: GeneralSettings, governing: Governing | None = None) -> Base:
    """A base by name, its digest known.

    Args:
        governing: where the tree is a stranger's: then a base of its own counts only as the protected branch has it.

    Raises:
        SettingsError: there is no such base, its weights are missing, or it is not the protected branch's.
    """
    try:
        base = find_base(name, root / general.bases, general.replaced_bases)
        _ = base.digest  # a missing weight file is told here, not in the middle of a stage
    except ModelsError as error:
        raise SettingsError(str(error), hint="voxline bases list") from None
    if governing is not None and not base.is_packaged:
        forbid_changed(base.folder, root, governing)
    return base


def forbid_below_card(resolved: Resolved, base: Base, voice_source: str) -> None:
    """A voice can raise the floors of its base's card, never lower them. Raises SettingsError with both values."""
    for key, floor in minima(base.gate.floors).items():
        chosen = next((one for one in resolved.origins if (one.section, one.key) == ("gate", key)), None)
        if chosen and chosen.source == voice_source and chosen.value is not None and chosen.value < floor:
            raise weaker_gate(voice_source, f"gate.{key}", chosen.value, floor, f"base {base.name}")


def make_plan(
    identifier: Identifier,
    registry: Registry,
    revisions: Revisions,
    *,
    voices: str = "voices",
    retries_refused: bool = False,
    memory: Memory | None = None,
) -> Plan:
    """Compare a revision, or the files on disk, with the registry.

    Args:
        voices: folder of the voices, inside the repository's.
        retries_refused: train also what was refused before.
        memory: content digests of Git trees, from earlier plans.

    Raises:
        UsageError: no repository, or the head is no commit.
        SettingsError: a folder in ``voices`` cannot be a voice's name.
    """
    root, head = identifier.root, revisions.head
    repository = find_repository(root)
    if repository is None and not revisions.is_worktree:
        raise UsageError(f"{root}: no Git repository", hint="voxline plan --worktree plans the files on disk")
    base_commit, note = _find_base(repository, revisions.base)
    head_commit = repository.commit(head) if repository else None
    if head_commit is None and not revisions.is_worktree:
        raise UsageError(
            f"{head!r} is not a commit of this repository",
            hint="git log shows the commits; fetch it, or pass --head HEAD",
        )
    prefix = _inside_repository(repository, root, voices)
    states = registry.states()
    note = "; ".join(filter(None, (note, _trust_note(registry.not_trusted(states)))))
    known = {tree: digest for name, state in states.items() for tree, digest in registry.trees(name, state).items()}
    with TreeDigests(known, memory) as digests:
        if revisions.is_worktree:
            snapshot = read_worktree(repository, head_commit, prefix, root / voices, digests)
        else:
            assert repository is not None and head_commit is not None
            snapshot = read_commit(repository, head_commit, prefix, digests)
    base_trees = repository.folders(base_commit, prefix) if repository and base_commit else None
    found = {
        name: _identify(name, *snapshot.contents[name], identifier, f"{voices}/{name}") for name in snapshot.contents
    }
    changes = {} if base_trees is None else find_changes(base_trees, snapshot)
    elsewhere = _published_elsewhere(registry, states, found, identifier.environment, repository)
    return Plan(
        base=base_commit,
        head=None if revisions.is_worktree else head_commit,
        registry=registry.url,
        note=note,
        entries=tuple(
            decide(
                found,
                changes,
                states,
                elsewhere=elsewhere,
                refusals={} if retries_refused else registry.refusals(),
                served=_served(registry, states, found),
            )
        ),
    )


def _served(
    registry: Registry, states: Mapping[str, VoiceState], found: Mapping[str, FoundVoice]
) -> dict[str, Release]:
    """What production serves of the voices whose folders say another version."""
    pointers = {name: state.production for name, state in states.items() if name in found}
    versions = {name: pointer.version for name, pointer in pointers.items() if pointer and pointer.version}
    return {
        name: registry.release(name, version)
        for name, version in versions.items()
        if version not in (found[name].version, None) and registry.has(name, version)
    }


def _trust_note(voices: list[str]) -> str:
    """What a person should know before a job is refused."""
    if not voices:
        return ""
    told = ", ".join(voices[:5]) + (" ..." if len(voices) > 5 else "")
    return f"not signed by a trusted key: {told}; see voxline registry verify, then voxline registry sign"


def find_changes(base_trees: Mapping[str, str], snapshot: Snapshot) -> dict[str, Change]:
    """What happened to each folder since the base. A folder on disk that differs from its commit is ``changed``."""
    deleted_trees = {tree for name, tree in base_trees.items() if name not in snapshot.contents}
    changes: dict[str, Change] = {}
    for name in {*base_trees, *snapshot.contents}:
        tree = snapshot.trees.get(name, "")
        if name not in snapshot.contents:
            changes[name] = "deleted"
        elif name in base_trees:
            changes[name] = "unchanged" if base_trees[name] == tree else "changed"
        else:
            changes[name] = "renamed" if tree in deleted_trees else "added"
    return changes


def _find_base(repository: Repository | None, base: str | None) -> tuple[str | None, str]:
    if not base or repository is None:
        return None, "no base given: every voice is compared with the registry alone"
    if not base.strip("0"):
        return None, "first push: every voice is compared with the registry alone"
    commit = repository.commit(base)
    if commit is None:
        why = (
            "not in this shallow clone"
            if repository.is_shallow()
            else "unknown here, the branch may have been force-pushed"
        )
        return None, f"base {base[:12]} is {why}: every voice is compared with the registry alone"
    return commit, ""


def _inside_repository(repository: Repository | None, root: Path, voices: str) -> str:
    """The voices folder as Git names it: from the top of the work tree, which may lie above ``root``."""
    if repository is None:
        return voices
    return PurePosixPath((root / voices).resolve().relative_to(repository.root.resolve())).as_posix()


def _identify(name: str, manifest_bytes: bytes | None, content: str, identifier: Identifier, folder: str) -> FoundVoice:
    """What is wrong with one voice becomes its own problem: the other voices are planned all the same."""
    source = f"{folder}/{MANIFEST_FILE}"
    if manifest_bytes is None:
        return FoundVoice(name, problem=f"{source} is missing, and with it the speaker's consent")
    try:
        manifest = parse_manifest(parse_table(manifest_bytes, source), source)
        voice = identifier.identify(name, manifest, content, source)
        check_consent(manifest, source)
    except ConsentError as error:
        return FoundVoice(name, consent_problem=error.message)
    except SettingsError as error:
        return FoundVoice(name, problem=error.message)
    return voice


def _published_elsewhere(
    registry: Registry,
    states: Mapping[str, VoiceState],
    found: Mapping[str, FoundVoice],
    environment: Mapping[str, str],
    repository: Repository | None,
) -> dict[str, str]:
    here = repository_name(environment, repository)
    owners = {}
    for name, state in states.items():
        pointer = state.production or state.candidate
        if name in found or pointer is None or pointer.version is None:
            continue
        owner = registry.release(name, pointer.version).provenance.repository
        if here and owner and owner != here:
            owners[name] = owner
    return owners
