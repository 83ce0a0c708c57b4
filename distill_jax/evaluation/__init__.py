"""What a trained student is worth: task metrics, calibration, fidelity, latency, size."""
