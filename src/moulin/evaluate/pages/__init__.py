"""Reports for people: their content, as an HTML page and as Markdown."""
