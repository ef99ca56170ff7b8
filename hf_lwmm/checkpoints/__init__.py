"""From files to named tensors: safetensors and torch files, containers, element types."""
