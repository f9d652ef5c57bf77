"""Verdicts: values in, values out. Nothing here reads a file, asks a clock or starts anything."""
