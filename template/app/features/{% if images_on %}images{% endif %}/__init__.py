"""Resize images and create thumbnails."""
