"""Generation and streaming in whole steps of machine code: packed weights, states as plain tensors."""
