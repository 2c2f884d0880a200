"""What a request costs: ours, the peers, and the figures that we set ourselves."""
