"""Jobs over any number of images on Ray Data."""
