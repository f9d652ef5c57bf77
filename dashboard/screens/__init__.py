"""The screens: which widgets, where, and what they read."""
