"""What is done to a finished student, step by step: made smaller still, brought up to date."""
