"""serve: the gallery's search service, and a page that turns any phone into a query device and a benchmark."""
