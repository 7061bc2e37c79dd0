"""What leaves the house: a sub-network of a trained model, by itself."""
