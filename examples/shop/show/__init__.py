"""What the demo needs to run and to be watched; the story itself is in ../demo."""
