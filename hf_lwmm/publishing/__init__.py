"""The model card and its templates, licences, evaluation results, and plots."""
