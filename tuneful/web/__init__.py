"""The pages of labelers and leads, and the API of their programs."""
