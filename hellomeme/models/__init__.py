"""The networks of the paper: Figures 1 to 3, the encoders, and the demo's autoencoder."""
