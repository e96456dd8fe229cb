"""The gallery's vectors: their embedding space, the feature store, its shards, whitening."""
