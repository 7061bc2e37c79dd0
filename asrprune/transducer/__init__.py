"""Define transducer models: encoders, predictors, joiner and the pruned loss."""
