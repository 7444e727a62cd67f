"""What the tests share: scratch workspaces, the commands run in them, and the checks of the promise."""
