"""What a command for training would do, found out without training."""
