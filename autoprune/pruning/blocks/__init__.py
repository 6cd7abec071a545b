"""Layer pruning: which residual blocks there are, how much each matters, and the network without them."""
