"""What the API takes: OpenAI's fields, and two of ours (`seed`, `language`). What is not named here is refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pipeline.serve.encoders import AudioFormat

# The models of OpenAI's own voices: a client that names one means "whatever speaks here".
OPENAI_MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
ShortName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class VoiceId(_Body):
    """A voice as newer clients of OpenAI name it."""

    id: ShortName


class SpeechOptions(_Body):
    """How something is said, whatever it is."""

    voice: ShortName | VoiceId = Field(description="`NAME`, `NAME@CHANNEL` or `NAME@VERSION`.")
    model: ShortName = Field("production", description="A channel, the voice's base, or a name of OpenAI's models.")
    response_format: AudioFormat = "mp3"
    speed: float = Field(1.0, ge=0.25, le=4.0)
    seed: int = Field(0, ge=0, lt=2**63, description="The same seed gives the same audio.")
    language: Literal["zh", "en", "ja", "ko", "yue"] | None = Field(None, description="Of the text; else the voice's.")

    @property
    def voice_name(self) -> str:
        return self.voice if isinstance(self.voice, str) else self.voice.id


class TimestampsRequest(SpeechOptions):
    """Body of `POST /v1/audio/speech/timestamps`."""

    input: str = Field(description="The text to say.")


class StreamStart(SpeechOptions):
    """The first message of the WebSocket `/v1/audio/stream`."""

    type: Literal["start"]
    response_format: AudioFormat = "pcm"
    api_key: str | None = Field(None, max_length=200, description="For browsers, which cannot send it as a header.")


class SpeechRequest(TimestampsRequest):
    """Body of `POST /v1/audio/speech`."""

    stream_format: Literal["audio", "sse"] = "audio"
    instructions: Literal[""] | None = Field(None, description="Not supported: a voice speaks as it was trained to.")
