"""One module per migration, named by its number; never changed once it was released."""
