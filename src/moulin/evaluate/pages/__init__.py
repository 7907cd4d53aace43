"""A result for people to read: what it says, and how that looks as a page and as Markdown."""
