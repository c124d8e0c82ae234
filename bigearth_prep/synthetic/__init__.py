"""A made-up BigEarthNet archive in the true on-disk layout, from which something can be learned."""
