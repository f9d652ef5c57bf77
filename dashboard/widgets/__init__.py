"""The pieces that screens are made of; each draws its cells from a Scene."""
