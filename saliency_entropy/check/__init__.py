"""What can be found out about a data set before anything is trained on it."""
