"""Data sets of the Hub and of folders, read as numbered images with or without annotations.

`datasets` is imported where rows are opened, so that folders of files are read without it.
"""
