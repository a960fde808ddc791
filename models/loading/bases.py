"""Bases: what a voice is trained on. Numbers, weights and limits of each stand in `bases/<name>/base.yaml`.

Free of torch, so that listing bases and planning stay light.
"""

import hashlib
import json
from collections.abc import Collection
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PositiveInt,
    SerializeAsAny,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from models.configs.cfm import CfmSynthesizerConfig
from models.configs.families import FAMILIES, load
from models.configs.speaker import SpeakerEncoderConfig
from models.configs.strict import StrictConfig
from models.configs.synthesizer import DiscriminatorConfig, SynthesizerConfig
from models.configs.text2semantic import Text2SemanticConfig
from models.configs.vocoder import AnyVocoderConfig
from models.errors import ConfigError, WeightsError

BASES = Path(__file__).resolve().parents[1] / "bases"
MAX_YAML_BYTES = 256 * 1024
# Numbers that only a decoder of earlier versions had. Gone, they still count: a base without them keeps its digest.
_DIGESTED_STILL = {
    "magnitude": {"kind": "linear", "exponent": 0.3, "floor": 1e-3},
    "posterior_skip": False,
    "prior_contrast": False,
    "pitch": False,
}


def _inside(name: str) -> str:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise ValueError("leads out of its folder")
    return name


InsidePath = Annotated[str, AfterValidator(_inside)]
RepositoryName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")]


class WeightFile(StrictConfig):
    """One file, or one folder of a hub repository, that holds weights.

    `repository` None: the file lies beside base.yaml. `revision` and `sha256` may be filled from a lock.
    """

    path: InsidePath  # inside the repository, or relative to base.yaml
    repository: RepositoryName | None = None
    revision: str = "main"
    layout: Literal["safetensors", "upstream", "folder"] = "safetensors"
    sha256: str | None = None  # of one file
    files: dict[InsidePath, str] = Field(default_factory=dict)  # of a folder: name -> sha256
    md5_first_8192: str | None = None  # by which upstream itself recognises its pretrained files


class License(StrictConfig):
    """Terms under which the weights may be used."""

    name: str
    url: str = ""
    notice: str = ""


class TextConfig(StrictConfig):
    """Phone table and languages of the text side."""

    symbols: Literal["v1", "v2"] = "v2"
    languages: tuple[str, ...] = ("zh", "en", "ja", "ko", "yue")
    bert_dim: PositiveInt = 1024  # zeros are fed where a language or a base has no BERT features


class GateFloors(StrictConfig):
    """The least that a voice on this base must reach, by the names of the limits, and how they were found."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float]

    # Required measurements that this base is published without -> why, and what stands in for them.
    waived: dict[str, str] = Field(default_factory=dict)
    speech: str = ""  # how far this base's own speech is from recordings, in one sentence
    evidence: dict[str, str] = Field(default_factory=dict)  # limit -> how it was found
    measured: str = "default of the project; not measured for this base"
    n_clips: int = Field(default=0, ge=0)

    @property
    def floors(self) -> dict[str, float]:
        """What this card states; who reads it knows which names there are."""
        return dict(self.__pydantic_extra__)


class Base(StrictConfig):
    """One base: family, numbers of its networks, where its weights come from, licence, gate floors."""

    name: str
    description: str = ""
    family: str  # a row of models/configs/families.py
    upstream_version: Literal["v2", "v2Pro", "v2ProPlus", "v3", "v4"] | None = None
    sample_rate_hz: PositiveInt  # of the speech it makes
    hop_samples: PositiveInt  # of one 50 Hz frame at the synthesizer's own rate
    text: TextConfig = TextConfig()
    synthesizer: SynthesizerConfig | None = None
    discriminator: DiscriminatorConfig | None = None
    text2semantic: Text2SemanticConfig | None = None
    cfm: CfmSynthesizerConfig | None = None  # v3 and v4, in place of synthesizer
    vocoder: AnyVocoderConfig | None = None
    speaker: SpeakerEncoderConfig | None = None
    content: dict[str, Any] | None = None
    networks: dict[str, SerializeAsAny[StrictConfig]] = Field(default_factory=dict)  # what only its family has
    weights: dict[str, WeightFile] = Field(default_factory=dict)  # role -> file
    license: License
    gate: GateFloors = GateFloors()
    folder: Path = Field(exclude=True)  # where base.yaml lies

    @field_validator("family")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in FAMILIES:
            raise ValueError(f"no family of this name; there are {', '.join(FAMILIES)}")
        return name

    @field_validator("networks", mode="before")
    @classmethod
    def _of_its_family(cls, networks: Any, info: ValidationInfo) -> Any:
        """The numbers of every network in the class that the family's row names for it."""
        row = FAMILIES.get(info.data.get("family", ""))
        if row is None:
            return {}  # the family is what is wrong
        if not isinstance(networks, dict):
            return networks
        for name in networks:
            if name not in row.numbers:
                known = ", ".join(row.numbers) or "none"
                raise ValueError(f"{name}: family {row.name} has no such network of its own; it has {known}")
        try:
            return {name: load(row.numbers[name]).model_validate(numbers) for name, numbers in networks.items()}
        except ValidationError as error:
            raise ValueError("; ".join(_told(item) for item in error.errors())) from error

    @cached_property
    def digest(self) -> str:
        """sha256 of what decides the sound: the numbers and the weights, not licence, words or gate floors."""
        told = self.model_dump(mode="json", exclude={"name", "description", "license", "gate"})
        if not self.networks:
            del told["networks"]  # digests from before families had networks of their own stay what they were
        for numbers in (told["synthesizer"], (told["cfm"] or {}).get("encoder")):
            if numbers:
                numbers.update(_DIGESTED_STILL)
        for role, file in self.weights.items():
            if file.repository is None:
                told["weights"][role]["sha256"] = _file_sha256(self.folder / file.path, self.name)
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def is_packaged(self) -> bool:
        """Whether it comes with voxline; else it lies in a repository's own folder."""
        return self.folder.parent == BASES

    @property
    def is_embedded(self) -> bool:
        """Whether every file of weights lies in this repository, so that nothing is downloaded."""
        return all(file.repository is None for file in self.weights.values())

    @property
    def random_roles(self) -> tuple[str, ...]:
        """Networks of this base that have no weights file at all, so that they start from random numbers."""
        return tuple(role for role in FAMILIES[self.family].roles if role not in self.weights)

    def missing_weights(self, cache: Path) -> list[str]:
        """Roles whose weights are neither in this repository nor in the cache of pulled bases."""
        return [role for role in self.weights if not self.weight_path(role, cache).exists()]

    def weight_path(self, role: str, cache: Path) -> Path:
        """Where the weights of a role lie: beside base.yaml, or pulled to `<cache>/bases/<name>/`."""
        file = self.weights[role]
        if file.repository is None:
            return self.folder / file.path
        name = role if file.layout == "folder" else f"{role}.safetensors"
        return cache / "bases" / self.name / name


def find_bases(own: Path) -> list[str]:
    """Names of all bases: those under `own`, a repository's own folder, and those of the package."""
    return sorted({*list_bases(own), *list_bases()})


def find_base(name: str, own: Path, replaced: Collection[str] = ()) -> Base:
    """`load_base` from the package, or from a repository's own folder.

    An own one takes the place of one of the package only where `replaced` names it: else a file in a folder of voices
    would decide what nano's gate asks for.
    """
    is_own = name in list_bases(own) and (name in replaced or name not in list_bases())
    return load_base(name, own if is_own else BASES)


def find_shadows(own: Path, replaced: Collection[str] = ()) -> list[str]:
    """Bases under `own` that are not used, because the package has one of the same name."""
    return sorted({*list_bases(own)} & {*list_bases()} - {*replaced})


def list_bases(root: Path = BASES) -> list[str]:
    """Names of the bases under `root`, sorted."""
    return sorted(path.parent.name for path in root.glob("*/base.yaml") if path.is_file())


def load_base(name: str, root: Path = BASES) -> Base:
    """Read `<root>/<name>/base.yaml`; raises `ConfigError` naming file, key and value."""
    path = root / name / "base.yaml"
    if name not in list_bases(root):
        raise ConfigError(f"no base {name!r}; there are: {', '.join(list_bases(root)) or 'none'}")
    content = _read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds no table of keys")
    if content.get("name", name) != name:
        raise ConfigError(f"{path}: name: {content['name']!r} is not the name of its folder")
    try:
        return Base.model_validate({**content, "name": name, "folder": path.parent})
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {_told(item)}" for item in error.errors())) from error


class _PlainLoader(yaml.SafeLoader):
    """Reads no aliases: a few lines of them can stand for gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias; write the value out")
        return super().compose_node(parent, index)


def _read_yaml(path: Path) -> Any:
    """A base.yaml may come from a stranger's branch: plain data only, and bounded."""
    with path.open("rb") as stream:
        content = stream.read(MAX_YAML_BYTES + 1)
    if len(content) > MAX_YAML_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_YAML_BYTES} bytes")
    try:
        return yaml.load(content.decode(), Loader=_PlainLoader)  # noqa: S506 - a safe loader that reads less
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error


def _told(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "base"
    reason = "unknown key" if item["type"] == "extra_forbidden" else item["msg"]
    value = repr(item["input"])
    return f"{key}: {reason} (value: {value if len(value) <= 80 else value[:77] + '...'})"


def _file_sha256(path: Path, name: str) -> str:
    if not path.is_file():
        raise WeightsError(f"{path}: weights of base {name!r} are missing; fetch them (git lfs pull) or train them")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
