"""Import-time repairs of third-party packages, done before they are first imported and nowhere else."""

from models.compat import prepare_deepfilternet, prepare_torchaudio

__all__ = ["prepare_deepfilternet", "prepare_torchaudio"]
