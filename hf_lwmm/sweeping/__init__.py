"""Merge every combination of models, anchors, methods and knobs, score the merges on one data set, and rank them.

A sweep goes round from scores back to plans: it writes a plan, loads the network, evaluates it and plans again. Only
`hf_lwmm.calibration` does the same.

The Parquet file of a sweep has a row for each candidate, the best first:

| column | type | meaning |
| --- | --- | --- |
| rank | int | 1 for the best; merges that are equal but for their anchor share it |
| candidate | string | its name, unique in the file |
| kind | string | `model`, `merge` or `ensemble` |
| models | list of string | the models that it is made of |
| anchor | string | null for an ensemble |
| method | string | null except for merges, as are `bn_stats` and `options` |
| start, alpha, ramp | float, float, string | of layerwise merges, null for others; alpha is 1/M where none was given |
| bn_stats | string | what becomes of BatchNorm's running statistics |
| options | map of string to float | options of any other method, those at their defaults included |
| trial | int | number of a search's trial, else null |
| metric | string | `mIoU`, `mean PQ`, `average accuracy` or `mean AP` |
| score, low, high | float | its value, a fraction, with the 95 % interval over images, or over groups of them |
| difference, difference_low, difference_high | float | to the best single model, paired; null for itself |
| to_anchor, to_anchor_low, to_anchor_high | float | to its anchor by itself, paired; null for models and ensembles |
| behind, behind_low, behind_high | float | to the best candidate, paired, at most 0; null for itself |
| by_class | list of float | a value for each of `classes`, nan where a class does not occur |
| definition | string | the candidate as JSON: the places of its models in the sweep, and its knobs as in a recipe |
| task, classes, notes | string, list of string, list of string | task, scored classes and notes of the evaluation |
| seconds | float | time of merging and scoring |
| counts, counts_shape | list of float, list of int | the metric's counts: (images, rows, K) |

The file's metadata `hf_lwmm.sweep` is JSON: `study`, which says what the results are of, and `skipped` with reasons.
"""
