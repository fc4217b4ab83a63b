"""Tests of radlens.phantoms; a package, because tests of images have a file of the same name."""
