"""What every room builds on: errors, files, options, random draws, command-line arguments."""
