"""Where connections come from: the contract in `base`, and one module for each who fulfils it."""
