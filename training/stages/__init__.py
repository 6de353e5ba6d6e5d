"""The stages of training, each a loss with its data."""
