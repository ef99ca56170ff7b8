"""From networks to scores: inference, per-image counts, the report, example pictures and overlays."""
