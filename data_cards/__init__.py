"""Templates of the dataset card and the model cards, with the citations they carry."""
