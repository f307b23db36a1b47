"""Human saliency maps: which files they are, how they are read, and the templates that stand in for them."""
