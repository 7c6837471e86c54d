"""ConvNeXt: convolutional networks with the macro design of vision transformers."""
