"""What all methods that learn a small set share: the estimator, and the resumable run that learns its tensors."""
