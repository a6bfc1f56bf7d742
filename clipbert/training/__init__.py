"""What training needs besides the model: losses."""
