"""Wrong labels found, beside the peers, by data set, kind and rate of noise, and seed."""
