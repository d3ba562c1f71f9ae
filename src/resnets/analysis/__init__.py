"""What a trained net does: responses of its layers, gradients, attribution, mistakes."""
