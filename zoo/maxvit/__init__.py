"""MaxViT: convolutions, and attention in windows and on grids."""
