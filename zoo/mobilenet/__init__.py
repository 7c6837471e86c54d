"""MobileNets."""
