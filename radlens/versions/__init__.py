"""Versions of models on a server: archives and their signatures, what is registered, and how one replaces another."""
