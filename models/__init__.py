"""Network weights that come with the package."""
