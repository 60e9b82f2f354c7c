"""Taking orders in: into the cache and the queue, acknowledged once both or one keeps them."""
