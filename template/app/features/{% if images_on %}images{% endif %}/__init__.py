"""Images: resizing and thumbnails."""
