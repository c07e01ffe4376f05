"""What a model is, as data (`spec`, torch-free), and the torch module of a spec (`builders`)."""
