"""From files to named tensors: safetensors and torch files, element types, atomic writing."""
