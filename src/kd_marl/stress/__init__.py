"""What a trained student is worth when sensors fail, lag or lie, a team mate stops, or the map is another."""
