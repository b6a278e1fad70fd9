"""How catchment runs elsewhere: registering Blocks and applying deployments."""
