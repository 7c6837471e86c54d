"""RegNet architectures: RegNetX and RegNetY."""
