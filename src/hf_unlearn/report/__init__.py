"""What a run recorded, and the pages and cards made from it."""
