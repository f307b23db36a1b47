"""From the run folders of a study to its tables, figures and report."""
