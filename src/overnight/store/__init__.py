"""Truth on disk: control rows in SQL, requests and results as immutable objects, checkpoint logs."""
