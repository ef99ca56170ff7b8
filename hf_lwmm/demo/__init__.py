"""Two small trained models and rendered streets, to try things out on without a network or an account."""

from hf_lwmm.demo.seed import FIRST_SCENE, MODELS, SPLITS, fill, upload_model, upload_names, upload_scenes
from hf_lwmm.demo.streets import CLASSES, render

__all__ = [
    "CLASSES",
    "FIRST_SCENE",
    "MODELS",
    "SPLITS",
    "fill",
    "render",
    "upload_model",
    "upload_names",
    "upload_scenes",
]
