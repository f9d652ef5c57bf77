"""What only a CUDA card can show: `make gpu`."""
