"""A deployed student goes on from its weights after sensors have died."""
