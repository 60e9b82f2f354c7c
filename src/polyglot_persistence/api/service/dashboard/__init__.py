"""The live page: everything in one look, made of static files and of this API."""
