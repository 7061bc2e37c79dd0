"""Provide what every other package uses: errors, files, options, random draws and arguments."""
