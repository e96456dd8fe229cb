"""The networks: gallery models, query models, their pooling and weights, and how photos become embeddings."""
