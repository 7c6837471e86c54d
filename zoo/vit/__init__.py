"""Vision transformers: ViT, DeiT, DeiT III, DINOv2, DINOv3, SigLIP and CLIP."""
