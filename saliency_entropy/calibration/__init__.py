"""What a run's scores say of errors and confidence: ROC curves, thresholds, calibration."""
