"""Rendered driving scenes with labels: a small world that needs no download."""

from hf_lwmm.demo.streets.canvas import CLASSES
from hf_lwmm.demo.streets.scene import IGNORE, STYLES, THINGS, Scene, render

__all__ = ["CLASSES", "IGNORE", "STYLES", "THINGS", "Scene", "render"]
