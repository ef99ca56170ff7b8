"""From headers and config.json to the network that a repository holds: its kind, its fields, slots and names."""
