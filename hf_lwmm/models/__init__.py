"""Networks that transformers and timm lack, as transformers `PreTrainedModel`s."""
