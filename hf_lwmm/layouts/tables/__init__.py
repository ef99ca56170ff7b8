"""The tables: one file for each family of networks, with the outline of its parts and the names in each code base."""
