"""Image classification (He et al. 2015, Sec. 4.1 and 4.2)."""
