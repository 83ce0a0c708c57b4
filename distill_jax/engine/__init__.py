"""What carries runs out, whatever their task: training, strategies, resume, parts."""
