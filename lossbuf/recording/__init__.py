"""What a training shows of every sample: losses, scores, ring buffers, running statistics and mean outputs."""
