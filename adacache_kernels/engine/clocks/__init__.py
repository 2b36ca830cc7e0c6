"""Tell steps and guidance branches apart."""
