"""Running backends over a data set: batches, worker processes, records as they come."""
