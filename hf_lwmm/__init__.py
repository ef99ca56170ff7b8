"""Layer-wise model merging for segmentation checkpoints on the Hugging Face Hub."""

from hf_lwmm._version import __version__

__all__ = ["__version__"]
