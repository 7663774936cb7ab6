"""The networks that this package trains and stores: F(x, c_noise, class_labels), wrapped by `Preconditioned`."""
