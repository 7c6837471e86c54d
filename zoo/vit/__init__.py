"""Vision transformers: ViT, DeiT, DeiT III, DINOv2, SigLIP and CLIP."""
